"""The key holder's HTTP interface, for programs and pages of the same machine."""
