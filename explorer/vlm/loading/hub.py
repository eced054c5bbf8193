"""What goes wrong between here and the hub, in plain words: names, permissions, revisions, no network."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LOG_IN = "log in with: hf auth login, or set HF_TOKEN"
NO_MODEL = (
    "; a repository without config.json holds an adapter (LoRA), GGUF files or the like: give the model that "
    "it was made from, or merge the adapter into it"
)
NO_CONNECTION = ("couldn't connect", "connection error", "offline mode", "cannot send a request")
"""How transformers says that it reached nobody, where it does not hand the error on."""


def hub_words(error: BaseException, name: str, revision: str | None) -> str | None:
    """What an error of reading from the hub means, and what to do; None for another error."""
    kinds = list(_causes(error))
    said = " ".join(str(one) for one in kinds).lower()
    if _any(kinds, GatedRepoError) or "gated repo" in said:
        return (
            f"its owner lets only those read it who have agreed to the terms: agree at "
            f"{constants.ENDPOINT}/{name}, then {LOG_IN}"
        )
    if _any(kinds, RevisionNotFoundError) or "not a valid git identifier" in said:
        return f"it has no revision {revision!r}; give a branch, a tag or a commit"
    if _any(kinds, RepositoryNotFoundError) or "not a valid model identifier" in said:
        return f"the hub has no such model, or not for you; check the name, or {LOG_IN}"
    unreached = _any(kinds, OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError)
    if unreached or any(words in said for words in NO_CONNECTION):
        return _not_here(name, revision)
    if _any(kinds, EntryNotFoundError) or "does not appear to have a file named" in said:
        if constants.HF_HUB_OFFLINE:
            return _not_here(name, revision)
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        bare = "config.json" in first and "preprocessor" not in first
        return f"a file is missing there ({first}){NO_MODEL if bare else ''}"
    return None


def _not_here(name: str, revision: str | None) -> str:
    """What to do without a network."""
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    command = f"hf download {name}{f' --revision {revision}' if revision else ''}"
    return (
        f"it is not on this machine, or not whole, and {why}; fetch it where there is a network: {command} "
        "(HF_HOME names the folder that keeps it), or give the folder of a copy"
    )


def _any(errors: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(error, kinds) for error in errors)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those it came from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
