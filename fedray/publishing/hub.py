"""The way to the Hugging Face hub, by huggingface_hub."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedray.errors import printable, reason
from fedray.scenario import ScenarioError

ADVICE = {
    401: "a token of an account that may write there: hf auth login, or HF_TOKEN",
    403: "a token with the right to write, of a member of that owner",
    404: "an owner that is there, and a token that may see the repository",
}


class NotPublished(RuntimeError):
    """The hub did not take it; its message is one line."""


def refuse_name(repo: str) -> None:
    """Raises ScenarioError for what is no name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if repo.count("/") != 1:
            raise HFValidationError
        validate_repo_id(repo)
    except HFValidationError:
        expected = "owner/name of letters, digits, dashes, dots and underscores, at most 96 characters"
        raise ScenarioError(
            [printable(f"{repo}: got no name of a repository, expected {expected}")]
        ) from None


def upload(folder: Path, repo: str, private: bool, message: str) -> dict[str, Any]:
    """Makes the repository where it is not there, and commits a folder's files to it. Gives `url` and
    `commit`.

    Args:
        folder: what is uploaded.
        repo: owner/name.
        private: whether a new repository is seen by its owner alone.
        message: of the commit.

    Raises:
        NotPublished: where the hub cannot be reached, or does not take it.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT, library_name="fedray", library_version=version("fedray"))
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except Exception as e:  # of its own kinds, of httpx and of the system: all that this library meets
        raise NotPublished(_line(e, repo, constants.ENDPOINT)) from e
    return {"url": str(url), "commit": done.oid}


def _line(e: Exception, repo: str, endpoint: str) -> str:
    response = getattr(e, "response", None)
    status = None if response is None else response.status_code
    said = reason(e)
    if status is None:
        return printable(f"{repo}: got {type(e).__name__} ({said}), expected {endpoint} to answer")
    expected = ADVICE.get(status, "a hub that takes it")
    return printable(f"{repo}: got {status} from {endpoint} ({said}), expected {expected}")
