"""What answers rest on: the same questions about altered sound, and what the answers to them show."""

FAMILIES = (
    "silenced",
    "swapped",
    "evidence-only",
    "evidence-cropped",
    "evidence-removed",
    "shifted",
    "rolled",
    "reversed",
)
"""What can be done; "evidence-removed" brings its control, "random-removed", along."""
