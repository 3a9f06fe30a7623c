"""Did fine-tuning delete a capability, or only wrap it?

A JAX/Flax reproduction of Jain et al., "Mechanistically analyzing the effects of fine-tuning on
procedurally defined tasks" (ICLR 2024, arXiv 2311.12786). Importing this package touches no device;
import the module you need, for example `finetune_wrappers.models.tracr_port`.
"""
