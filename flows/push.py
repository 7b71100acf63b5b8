"""A release folder as a model repository of a hub: what would be uploaded, what speaks against it, and the upload.

Nothing is sent before `push` is called. One commit holds all files, so the repository shows the whole release or none
of it. lineage.json is sent without the machine's paths.

Not done: deleting files that an earlier push left in the repository; collections, DOIs, and gated access.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from configs.errors import RetryableError, UserError
from configs.paths import MACHINE_PATH, without_folders

ALLOWED = ("*.safetensors", "*.safetensors.index.json", "*.gguf", "*.jinja", "README.md", "LICENSE*", "NOTICE*",
           "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
           "merges.txt", "special_tokens_map.json", "added_tokens.json", "lineage.json", "evaluation.json",
           "formats.json", "gates.json", "Modelfile", "*.Modelfile", "*.svg", "*.png")  # fmt: skip
"""What a release is made of; anything else in its folder was not put there by this project."""
NEEDED = ("README.md", "config.json", "tokenizer.json", "lineage.json", "evaluation.json")
EXPORTED = "\n## Fewer bits\n"
"""In the card of an export of fewer bits, as `derivatives/formats/record.py` writes it (a test holds the two equal)."""
MAX_FILE_BYTES = 50e9
"""A hub takes no larger file (its documentation on storage limits); releases are written in shards of 5 GB."""
MAX_TEXT_BYTES = 20e6
SECRETS = {
    "a Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
    "an AWS key": r"AKIA[0-9A-Z]{16}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a GitHub token": r"gh[pousr]_[A-Za-z0-9]{36,}",
    "an API key": r"(?<![A-Za-z0-9])sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}",
    "a Slack token": r"xox[abprs]-[A-Za-z0-9-]{10,}",
}
METADATA = {"license": str, "pipeline_tag": str, "library_name": str, "tags": list}
"""Front matter of the card that a hub reads, and its type. `base_model` is there where the base is one of a hub."""
PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
OWN_TO_THE_MACHINE = ("folder", "host")
"""Fields of a lineage that say where something lies, or what the machine is called."""


@dataclass(frozen=True)
class Item:
    """A file that is uploaded: its name, its content's place (or the content, where it is changed), size and digest."""

    name: str
    source: Path | bytes
    size: int
    sha256: str


@dataclass(frozen=True)
class Plan:
    """What a push does.

    Attributes:
        repository: OWNER/NAME.
        private: Whether the repository is made private; one that exists must be private then.
        revision: Branch.
        endpoint: Address of the hub.
        items: What is uploaded.
        metadata: The card's front matter.
        gates: How the folder shows that its gates held.
        token: Where the token comes from; None where there is none.
        notes: What a careful person should know.
    """

    repository: str
    private: bool
    revision: str
    endpoint: str
    items: tuple[Item, ...]
    metadata: Mapping[str, Any]
    gates: str
    token: str | None
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(item.size for item in self.items)


def plan(release: Path, repository: str, private: bool = False, revision: str = "main") -> Plan:
    """Look at a release folder and say what a push would do; it contacts nobody.

    Raises:
        UserError: Whatever speaks against it: no release, gates that did not hold, a card without what a hub reads, a
            file that is no part of a release or too large, something that looks like a secret.
    """
    if not re.fullmatch(f"{PART}/{PART}", repository) or "--" in repository or ".." in repository:
        raise UserError(f"OWNER/NAME: {repository!r}; allowed: an owner and a name of letters, digits, `.`, `_` and "
                        "`-`, such as someone/my-math-model")  # fmt: skip
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", revision) or ".." in revision:
        raise UserError(f"--revision: {revision!r}; allowed: a branch name of letters, digits, `.`, `_`, `-` and `/`")
    lacking = [name for name in NEEDED if not (release / name).is_file()]
    if lacking or not any(release.glob("*.safetensors")):
        raise UserError(
            f"RELEASE: {release} has no {', '.join(lacking) or '*.safetensors'}; give the folder that a release stage "
            "wrote after its gates held, or one that `derive export` made of it"
        )
    check_weights(release)
    gates = gates_of(release)
    metadata = metadata_of(release / "README.md")
    items = tuple(_item(path) for path in _files(release))
    notes = []
    base = metadata.get("base_model")
    if base is None:
        notes.append("the card names no base model: the base is none of a hub")
    elif "/" not in str(base):
        notes.append(f"base_model {base!r} is no model of a hub; the card's link will lead nowhere")
    if metadata["license"] == "other":
        notes.append("licence `other`: say in the repository which terms bind (the card's licence section lists them)"
                     + ("" if any(release.glob("LICENSE*")) else "; many ask that their text goes along, and the "
                        "folder has no LICENSE"))  # fmt: skip
    card = (release / "README.md").read_text(encoding="utf-8", errors="replace")
    named = list(dict.fromkeys(found[0] for found in MACHINE_PATH.finditer(card)))
    if named:
        notes.append(f"README.md names what look like folders of a machine: {', '.join(named[:3])}")
    loosened = re.findall(r"^\*\*(.*?)$", gates_section(release), re.MULTILINE)
    notes += [f"the card's gates: {line.replace('**', '')}" for line in loosened]
    if EXPORTED in card:
        notes.append("these are weights of fewer bits: the gates are those of the release that they were made from")
    notes += re.findall(r"\*\*(The limit was loosened by hand: [^*\n]*)\*\*", card)
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return Plan(repository, private, revision, endpoint.rstrip("/"), items, metadata, gates, token_source(),
                tuple(notes))  # fmt: skip


def check_weights(release: Path) -> None:
    """Every file of weights that the index names is there, and none that it does not name. Raises UserError."""
    index = release / "model.safetensors.index.json"
    there = {path.name for path in release.glob("*.safetensors")}
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else there
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"RELEASE: {index} cannot be read ({error}); write the release again") from error
    if named != there or (len(there) > 1 and not index.is_file()):
        raise UserError(f"RELEASE: {', '.join(sorted(map(str, named ^ there))) or index.name} is missing in {release}, "
                        "or is of another model; take the whole folder from its store again")  # fmt: skip


def gates_of(release: Path) -> str:
    """How the folder shows that its gates held. Raises UserError."""
    beside = release.parent / "metrics.json"
    if beside.is_file():
        try:
            found = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        found = found if isinstance(found, dict) else {}
        if not all(isinstance(gate, dict) for gate in found.get("gates") or []):
            found = {}
        if found.get("released") is False or any(not gate.get("passed") for gate in found.get("gates") or []):
            raise UserError(f"RELEASE: {beside} says that its gates did not hold; only a released model is pushed")
        if found.get("released"):
            return f"{len(found.get('gates') or [])} held, by metrics.json of the release stage"
    section = gates_section(release)
    if "All held" not in section and "sets no gate" not in section:
        raise UserError(f"RELEASE: the card in {release} shows no gates that held; give a folder that a release stage "
                        "wrote")  # fmt: skip
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return f"{len(rows)} held, by the card" if rows else "the recipe set none, by the card"


def gates_section(release: Path) -> str:
    """What the card says of its gates; empty where it says nothing."""
    card = (release / "README.md").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^## Gates\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def metadata_of(card: Path) -> dict[str, Any]:
    """The card's front matter, with all that a hub reads. Raises UserError."""
    text = card.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        raise UserError(f"RELEASE: the front matter of {card} is no YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(metadata, dict):
        raise UserError(f"RELEASE: {card} has no front matter; give a folder with the card that a release stage wrote")
    wrong = [name for name, kind in METADATA.items() if not isinstance(metadata.get(name), kind) or not metadata[name]]
    if wrong:
        raise UserError(f"RELEASE: the front matter of {card} lacks {', '.join(wrong)}; write the release again")
    return metadata


def _files(release: Path) -> list[Path]:
    found = sorted(path for path in release.rglob("*") if not path.is_dir())
    for path in found:
        name = str(path.relative_to(release))
        if path.is_symlink() or "/" in name or not any(Path(name).match(pattern) for pattern in ALLOWED):
            raise UserError(f"RELEASE: {name} is no file of a release, and may be private; move it out of {release}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"RELEASE: {name} has {path.stat().st_size / 1e9:.1f} GB; a hub takes "
                            f"{MAX_FILE_BYTES / 1e9:g} GB a file: write the weights in shards")  # fmt: skip
    return found


def _item(path: Path) -> Item:
    """A file with its digest; text is looked through for secrets."""
    if path.suffix in (".safetensors", ".gguf", ".png"):
        with path.open("rb") as file:
            return Item(path.name, path, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    content = path.read_bytes()
    if len(content) > MAX_TEXT_BYTES:
        raise UserError(f"RELEASE: {path.name} has {len(content) / 1e6:.0f} MB of text; allowed: "
                        f"{MAX_TEXT_BYTES / 1e6:g} MB")  # fmt: skip
    if path.name == "lineage.json":
        try:
            content = json.dumps(without_paths(json.loads(content)), indent=2, sort_keys=True).encode() + b"\n"
        except ValueError as error:
            raise UserError(f"RELEASE: {path} is no JSON ({error}); write the release again") from error
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        for what, pattern in SECRETS.items():
            if re.search(pattern, line):
                raise UserError(f"RELEASE: line {number} of {path.name} holds what looks like {what}; take it out, and "
                                "make that secret invalid if it is one")  # fmt: skip
    same = content == path.read_bytes()
    return Item(path.name, path if same else content, len(content), hashlib.sha256(content).hexdigest())


def without_paths(value: Any) -> Any:
    """JSON with every absolute path of the machine cut to its last part, without stages' folders and the host's name.

    >>> without_paths({"folder": "/data/ab", "command": "derive run /home/me/x.yaml --set a=[/data/s/b]", "url": "a/b"})
    {'command': 'derive run x.yaml --set a=[b]', 'url': 'a/b'}
    """
    if isinstance(value, dict):
        return {without_paths(key): without_paths(one) for key, one in value.items() if key not in OWN_TO_THE_MACHINE}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    return without_folders(value) if isinstance(value, str) else value


def token_source() -> str | None:
    """Where huggingface_hub will find a token; never the token itself."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable, "").strip():
            return f"${variable}"
    from huggingface_hub import constants

    path = Path(constants.HF_TOKEN_PATH)
    return f"the file {path.name} in the folder of huggingface_hub" if path.is_file() else None


def push(planned: Plan) -> str:
    """Make the repository where it is missing, upload, and compare what is there with what was sent; its address.

    Raises:
        UserError: No token, or the hub refuses it or the files.
        RetryableError: It broke off; the message says how to go on.
    """
    if planned.token is None:
        raise UserError("--really: no token; `hf auth login`, or set $HF_TOKEN to one that may write to "
                        f"{planned.repository}")  # fmt: skip
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false"):
        raise UserError("--really: $HF_HUB_OFFLINE is set, so nothing can be sent; unset it")
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi(endpoint=planned.endpoint)
    name, branch = planned.repository, planned.revision
    reached = "nothing was made or sent"
    try:
        hub.create_repo(name, private=planned.private, exist_ok=True)
        reached = f"the repository {name} is there, without these files"
        if planned.private and not hub.model_info(name).private:
            raise UserError(f"--private: {name} was there before and is public; {reached}. Make it private in its "
                            "settings, take another name, or leave --private out")  # fmt: skip
        if branch != "main":
            hub.create_branch(name, branch=branch, exist_ok=True)
        files = [CommitOperationAdd(item.name, item.source) for item in planned.items]
        commit = hub.create_commit(name, files, commit_message=f"Release {name.split('/')[1]}", revision=branch)
        reached = f"the commit {commit.oid[:12]} was made"
        there = {one.path: one for one in hub.get_paths_info(name, [item.name for item in planned.items],
                                                            revision=commit.oid)}  # fmt: skip
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (400, 401, 403, 404, 409, 413, 422):
            raise UserError(f"--really: {planned.endpoint} answers {status} ({_line(error)}); {reached}. Check the "
                            f"token's rights on {name} and the name") from error  # fmt: skip
        raise _broken(error, reached) from error
    except ValueError as error:
        raise UserError(f"--really: the hub refuses the files ({_line(error)}); {reached}") from error
    except (httpx.HTTPError, OSError) as error:
        raise _broken(error, reached) from error
    for item in planned.items:
        found: Any = there.get(item.name)
        digest = found.lfs.sha256 if found is not None and found.lfs else None
        if found is None or found.size != item.size or digest not in (None, item.sha256):
            raise RetryableError(f"push: {item.name} is not in {name} as it was sent; run the same command again")
    return f"{planned.endpoint}/{name}"


def _broken(error: Exception, reached: str) -> RetryableError:
    return RetryableError(f"push: broke off ({_line(error)}); {reached}. Run the same command again: what arrived "
                          "whole is not sent again, and the repository shows the files only when all are there"
                          )  # fmt: skip


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
