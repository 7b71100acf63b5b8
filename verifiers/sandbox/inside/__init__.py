"""What runs on the far side: the zygote, the child that holds a candidate, and the codec that both sides speak.

Only the standard library is imported here, with relative imports, because the zygote loads this folder by itself (as
the package `inside`) in an interpreter without site-packages. Nothing here ever sees an expected value.
"""
