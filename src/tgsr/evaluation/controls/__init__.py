"""What answers rest on: the same questions about altered sound, and what the answers to them show."""

FAMILIES = (
    *("silenced", "swapped", "evidence-only", "evidence-cropped", "evidence-removed", "shifted", "rolled"),
    "reversed",
)
"""What is done unless something else is asked for; "evidence-removed" brings its control, "random-removed", along."""

OF_REASONING = ("early", "filler", "mistaken", "paraphrased")
"""What is done to the reasoning, from which the model goes on; "reasoned", where nothing is, comes along."""

FAITHFULNESS = "faithfulness"
PUBLISHED = ("silenced", "evidence-removed", "masked", "noisy", "spoken", *OF_REASONING)
"""What the word FAITHFULNESS stands for: the interventions of arXiv 2509.22363, as far as they are offered."""

OFFERED = (*FAMILIES, *(family for family in PUBLISHED if family not in FAMILIES))

CRITERIA = {
    "noisy": "hallucination-free",
    "silenced": "hallucination-free",
    "masked": "holistic",
    "evidence-removed": "holistic (guided)",
    "random-removed": "holistic (guided)",
    "spoken": "attentive listening",
    **dict.fromkeys(("reasoned", *OF_REASONING), "reasoning to answer"),
}
"""What that paper tests with the interventions of a family, in its words; the last name is ours."""
