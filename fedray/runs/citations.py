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
    "chen2023": """@article{chen2023exploring,
  title={Exploring the potential of federated learning for diffusion model: Training and fine-tuning},
  author={Chen, Shuo},
  year={2023}
}""",
    "ho2020": """@inproceedings{ho2020denoising,
  title={Denoising Diffusion Probabilistic Models},
  author={Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle={NeurIPS},
  year={2020}
}""",
    "fedprox": """@inproceedings{li2020federated,
  title={Federated Optimization in Heterogeneous Networks},
  author={Li, Tian and Sahu, Anit Kumar and Zaheer, Manzil and Sanjabi, Maziar and Talwalkar, Ameet and Smith, Virginia},
  booktitle={MLSys},
  year={2020}
}""",
    "scaffold": """@inproceedings{karimireddy2020scaffold,
  title={{SCAFFOLD}: Stochastic Controlled Averaging for Federated Learning},
  author={Karimireddy, Sai Praneeth and Kale, Satyen and Mohri, Mehryar and Reddi, Sashank and Stich, Sebastian and
    Suresh, Ananda Theertha},
  booktitle={ICML},
  year={2020}
}""",
    "fedavgm": """@article{hsu2019measuring,
  title={Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification},
  author={Hsu, Tzu-Ming Harry and Qi, Hang and Brown, Matthew},
  journal={arXiv preprint arXiv:1909.06335},
  year={2019}
}""",
    "fedopt": """@inproceedings{reddi2021adaptive,
  title={Adaptive Federated Optimization},
  author={Reddi, Sashank and Charles, Zachary and Zaheer, Manzil and Garrett, Zachary and Rush, Keith and Kone{\\v{c}}n{\\'y},
    Jakub and Kumar, Sanjiv and McMahan, H. Brendan},
  booktitle={ICLR},
  year={2021}
}""",
    "ffa_lora": """@inproceedings{sun2024improving,
  title={Improving {LoRA} in Privacy-preserving Federated Learning},
  author={Sun, Youbang and Li, Zitao and Li, Yaliang and Ding, Bolin},
  booktitle={ICLR},
  year={2024}
}""",
    "fedex_lora": """@article{singhal2024fedex,
  title={{FedEx-LoRA}: Exact Aggregation for Federated and Efficient Fine-Tuning of Foundation Models},
  author={Singhal, Raghav and Ponkshe, Kaustubh and Vepakomma, Praneeth},
  journal={arXiv preprint arXiv:2410.09432},
  year={2024}
}""",
    "flora": """@inproceedings{wang2024flora,
  title={{FLoRA}: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank Adaptations},
  author={Wang, Ziyao and Shen, Zheyu and He, Yexiao and Sun, Guoheng and Wang, Hongyi and Lyu, Lingjuan and Li, Ang},
  booktitle={NeurIPS},
  year={2024}
}""",
    "error_feedback": """@inproceedings{stich2018sparsified,
  title={Sparsified {SGD} with Memory},
  author={Stich, Sebastian U. and Cordonnier, Jean-Baptiste and Jaggi, Martin},
  booktitle={NeurIPS},
  year={2018}
}""",
    "qsgd": """@inproceedings{alistarh2017qsgd,
  title={{QSGD}: Communication-Efficient {SGD} via Gradient Quantization and Encoding},
  author={Alistarh, Dan and Grubic, Demjan and Li, Jerry and Tomioka, Ryota and Vojnovic, Milan},
  booktitle={NeurIPS},
  year={2017}
}""",
    "cifar": """@techreport{krizhevsky2009learning,
  title={Learning Multiple Layers of Features from Tiny Images},
  author={Krizhevsky, Alex},
  institution={University of Toronto},
  year={2009}
}""",
    "celeba": """@inproceedings{liu2015deep,
  title={Deep Learning Face Attributes in the Wild},
  author={Liu, Ziwei and Luo, Ping and Wang, Xiaogang and Tang, Xiaoou},
  booktitle={ICCV},
  year={2015}
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
        "huang2023": True,  # the topologies are its Fig. 2
        "mcmahan2017": True,
        "chen2023": scenario.topology.kind == "parallel" and scenario.model.kind != "classifier",
        "ho2020": scenario.model.kind == "diffusion",
        **{rule: scenario.aggregation.kind == rule for rule in ("fedprox", "scaffold", "fedavgm", "ffa_lora", "fedex_lora", "flora")},
        "fedopt": scenario.aggregation.kind in ("fedadam", "fedyogi"),
        "error_feedback": any(getattr(t, "error_feedback", False) for t in scenario.aggregation.transforms),
        "qsgd": any(t.kind == "quantise" for t in scenario.aggregation.transforms),
        "cifar": scenario.data.kind.startswith("cifar"),
        "celeba": scenario.data.kind == "celeba",
        "hu2021": scenario.tuning.kind == "lora",
        "rombach2022": scenario.model.kind == "text_to_image",
        "hang2023": getattr(scenario.model, "min_snr_gamma", None) is not None,
        "xiao2017": scenario.data.kind.startswith("fashion_mnist") or "shipped:" in getattr(scenario.data, "path", ""),
    }
    return "\n\n".join(_ENTRIES[name] for name, yes in used.items() if yes) + "\n"
