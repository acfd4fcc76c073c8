"""A model that answers: one question for a person to read along, many for a score."""
