"""A prefix of an S3 bucket as a store, one verb a file. Nothing else in trainer/ knows boto3.

`store` has the methods of a Store, `download` and `upload` do the work of most of them,
`connection` is what each request needs, `fast_path` makes the plain ones without boto3.
"""
