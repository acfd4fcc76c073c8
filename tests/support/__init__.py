"""What several tests share: jobs, buckets, models, stand-ins."""
