"""Which methods can serve: found out at start, with the reason for those that cannot."""

from __future__ import annotations

from ...budget import count
from ...errors import TokenPruneError
from ...methods import Reducer, get_method
from .settings import Choice

PROBES = (1, 2, 7, 49, 196, 576, 1024, 4096)  # numbers of tokens at which a method's own count is compared
COUNTED_BEFORE = "vLLM counts a prompt's tokens before any feature exists"
CACHED = "vLLM caches a picture's tokens under its hash, for every prompt that shows it"


def reason_against(method: Reducer) -> str | None:
    """Why this method cannot serve; None where it can."""
    if method.stage != "input" or method.parts() != (method,):
        return f"it acts inside the language model (stage {method.stage!r}); only input methods can be served"
    if method.query_aware:
        return f"its choice depends on the question, but {CACHED}"
    if not method.exact:
        return f"the content decides how many tokens it keeps, but {COUNTED_BEFORE}"
    if method.needs:
        wanted = ", ".join(sorted(method.needs))
        return f"it needs {wanted}, which vLLM's vision towers do not show; methods that read features only can serve"
    for n in PROBES:
        try:
            own = method.num_kept(n)
        except TokenPruneError as error:
            return str(error)
        if own != count(method.keep, n):
            return f"of {n} tokens it keeps {own}, keep says {count(method.keep, n)}, and {COUNTED_BEFORE} from keep"
    return None


def served(choice: Choice) -> Reducer:
    """The method behind a choice; raises `TokenPruneError` with the reason if it cannot serve."""
    method = get_method(choice.method, **{"keep": choice.keep, **choice.hyper})
    why = reason_against(method)
    if why is not None:
        raise TokenPruneError(f"{choice.method!r} cannot be served with vLLM: {why}")
    return method
