"""A site's rows: found, read, checked against the schema, and split."""
