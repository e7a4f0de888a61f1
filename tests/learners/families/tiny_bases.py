"""Tiny base models of each family with random weights, in diffusers' layout, with tiny-sd's tokenizer."""

import torch

from fedray import shipped

TOKENIZER = shipped.HERE / "tiny-sd" / "tokenizer"


def tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(TOKENIZER)


def clip(kind, width, projection=None):
    """A text encoder of two layers for tiny-sd's tokenizer."""
    from transformers import CLIPTextConfig

    known = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(known),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=known.model_max_length,
        projection_dim=projection or width,
        bos_token_id=known.bos_token_id,
        eos_token_id=known.eos_token_id,
        pad_token_id=known.pad_token_id,
    )
    return kind(config)


def unet(cross_attention_dim, **more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        **more,
    )


def vae(channels=4, **more):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **more,
    )


def betas(**more):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **more,
    )


def stable_diffusion_2(folder):
    """OpenCLIP's kind of text encoder, and a prediction of the velocity."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(CLIPTextModel, 32),
        tokenizer=tokenizer(),
        unet=unet(32),
        scheduler=betas(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def sdxl(folder):
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=clip(CLIPTextModel, 32),
        text_encoder_2=clip(CLIPTextModelWithProjection, 32, 16),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(
            64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 6 * 8,
            transformer_layers_per_block=(1, 2),
        ),
        scheduler=betas(),
    ).save_pretrained(folder)
    return folder


BASES = {"StableDiffusionPipeline": stable_diffusion_2, "StableDiffusionXLPipeline": sdxl}
