"""`understudy completion bash`: a script by which a shell completes verbs, flags and files.

    understudy completion bash > ~/.local/share/bash-completion/completions/understudy
    echo 'source <(understudy completion zsh)' >> ~/.zshrc

The script holds what there is when it is written: nothing is started while somebody types. Write it again after an
upgrade; with --plugins PACKAGE,... it holds the flags of plug-ins, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from importlib import import_module
from typing import ClassVar

from ...configs.settings.listing import settings_of

SCRIPT = """\
# completes `understudy`; written by `understudy completion`
_understudy() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" flags=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
    return
  fi
  case "$word" in
    -*)
      case "${{COMP_WORDS[1]}}" in
{cases}
      esac
      COMPREPLY=($(compgen -W "$flags {everywhere}" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _understudy understudy
"""
EVERYWHERE = "--help --plugins --traceback"  # flags of every verb
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


class Shell(Enum):
    """Shells that are known."""

    bash = "bash"
    zsh = "zsh"


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print the script by which a shell completes verbs, flags and files."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("shell",)

    shell: Shell  # bash | zsh

    def run(self) -> None:
        from ...__main__ import VERBS

        print((ZSH if self.shell is Shell.zsh else "") + script({verb: place for verb, (place, _) in VERBS.items()}))


def script(verbs: Mapping[str, str]) -> str:
    """The script for verbs and where their settings are, `module:Class`."""
    flags = {verb: flags_of(place) for verb, place in verbs.items()}
    cases = "\n".join(f'        {verb}) flags="{" ".join(names)}" ;;' for verb, names in flags.items() if names)
    return SCRIPT.format(verbs=" ".join(verbs), cases=cases, everywhere=EVERYWHERE)


def flags_of(place: str) -> list[str]:
    """The flags of a verb; none of one whose first word says whose flags follow."""
    module, name = place.split(":")
    config = getattr(import_module(f"{__package__.partition('.')[0]}.{module}"), name)
    return [f"--{setting.name}" for setting in settings_of(config)] if is_dataclass(config) else []
