"""The files that adapters have, for those who open them elsewhere."""

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # opened by `load_lora_weights(folder)`
KOHYA_FILE = "kohya_lora.safetensors"  # for ComfyUI and A1111
