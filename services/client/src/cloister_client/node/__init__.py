"""The site's SuperNode: messages from the SuperLink, each worked on in a process of its own."""
