"""CITATION.bib: what to cite for exactly the methods a scenario uses."""

from __future__ import annotations

from fedray.scenario.scenario import Scenario

_ENTRIES = {
    "huang2023": """@article{huang2023federated,
  title={Federated Learning-Empowered AI-Generated Content in Wireless Networks},
  author={Huang, Xumin and Li, Peichun and Du, Hongyang and Kang, Jiawen and Niyato, Dusit and Kim, Dong In and Wu, Yuan},
  journal={arXiv preprint arXiv:2307.07146},
  year={2023}
}""",
    "mcmahan2017": """@inproceedings{mcmahan2017communication,
  title={Communication-Efficient Learning of Deep Networks from Decentralized Data},
  author={McMahan, Brendan and Moore, Eider and Ramage, Daniel and Hampson, Seth and {Ag{\\"u}era y Arcas}, Blaise},
  booktitle={AISTATS},
  year={2017}
}""",
    "hu2021": """@inproceedings{hu2022lora,
  title={{LoRA}: Low-Rank Adaptation of Large Language Models},
  author={Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean and
    Wang, Lu and Chen, Weizhu},
  booktitle={ICLR},
  year={2022}
}""",
    "rombach2022": """@inproceedings{rombach2022high,
  title={High-Resolution Image Synthesis with Latent Diffusion Models},
  author={Rombach, Robin and Blattmann, Andreas and Lorenz, Dominik and Esser, Patrick and Ommer, Bj{\\"o}rn},
  booktitle={CVPR},
  year={2022}
}""",
    "hang2023": """@inproceedings{hang2023efficient,
  title={Efficient Diffusion Training via Min-{SNR} Weighting Strategy},
  author={Hang, Tiankai and Gu, Shuyang and Li, Chen and Bao, Jianmin and Chen, Dong and Hu, Han and Geng, Xin and Guo, Baining},
  booktitle={ICCV},
  year={2023}
}""",
    "xiao2017": """@article{xiao2017fashion,
  title={Fashion-{MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  author={Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  journal={arXiv preprint arXiv:1708.07747},
  year={2017}
}""",
}


def bibtex(scenario: Scenario) -> str:
    used = {
        "huang2023": scenario.topology.kind == "relay",
        "mcmahan2017": scenario.aggregation.kind == "fedavg",
        "hu2021": scenario.tuning.kind == "lora",
        "rombach2022": scenario.model.kind == "text_to_image",
        "hang2023": scenario.model.min_snr_gamma is not None,
        "xiao2017": scenario.data.kind == "fashion_mnist_mini" or "shipped:" in getattr(scenario.data, "path", ""),
    }
    return "\n\n".join(_ENTRIES[name] for name, yes in used.items() if yes) + "\n"
