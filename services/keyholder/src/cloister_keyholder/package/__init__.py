"""client.zip: unpacked within limits, and its checked content."""
