"""What a run says about itself: `run.json`, the report, the model card."""
