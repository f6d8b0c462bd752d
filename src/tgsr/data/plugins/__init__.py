"""The rewards of `tgsr train grpo` as other trainers load them: one file each, named by its path or by its module.

No file here may have the name of a package: ms-swift puts this folder before all others that Python imports from.
"""

FILES = {
    "ms-swift": "tgsr_ms_swift.py",
    "trl": "tgsr_trl.py",
    "verl": "tgsr_verl.py",
    "nemo-rl": "tgsr_nemo_rl.py",
}
