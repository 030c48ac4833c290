"""The only folder with torch: base, adapter, chat template, the training loop, generation."""

import logging

# On CPUs with AVX512-BF16 bitsandbytes advises, at import, to install a package that fetches kernels from a hub and runs them.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
