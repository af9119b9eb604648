"""Functions that ``torch.compile`` calls as they are: it breaks its graph there, without a word, and looks at nothing inside.

``torch.compiler.disable`` says the same, but imports the compiler at once. This is what PyTorch's own optimizers use.
"""

from torch._compile import _disable_dynamo as not_compiled

__all__ = ["not_compiled"]
