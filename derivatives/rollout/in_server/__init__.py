"""What runs inside a vLLM server, in its environment: the folder is put on the path of a server that a stage starts."""
