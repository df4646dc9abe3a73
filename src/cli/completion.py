"""``cachefetch completion bash|zsh|fish``: a completion script, made from the commands' own parsers."""

from __future__ import annotations

from importlib import import_module

from .options import Parser
from .report import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_BASH = """\
# bash completion of cachefetch: source <(cachefetch completion bash)
_cachefetch() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command= each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $each in {alternatives}) command=$each; break;; esac
    done
    local words=
    case $command in
{cases}
        *) words="{commands} --help --version";;
    esac
    if [[ $word == -* || -z $command || $COMP_CWORD -eq 2 ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -o filenames -F _cachefetch cachefetch
"""
_ZSH = """\
# zsh completion of cachefetch: source <(cachefetch completion zsh)
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
_cachefetch() {{
    local command= each
    local -a found
    for each in "${{(@)words[2,CURRENT-1]}}"; do
        case $each in ({alternatives}) command=$each; break;; esac
    done
    case $command in
{cases}
        (*) found=({commands} --help --version);;
    esac
    if [[ $PREFIX == -* || -z $command || $CURRENT -eq 3 ]]; then
        compadd -a found && return
    fi
    _files
}}
compdef _cachefetch cachefetch
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def execute(args: argparse.Namespace) -> int:
    """Print the script."""
    words = {name: words_of(name) for name in _commands()}
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]
    line(make(words).rstrip("\n"))
    return 0


def _commands() -> dict[str, tuple[str, str]]:
    from . import COMMANDS

    return COMMANDS


def words_of(command: str) -> list[str]:
    """Return the actions and options of a command, from its parser."""
    parser = Parser(prog=command)
    import_module(f"{__package__}.{_commands()[command][0]}").configure(parser)
    words: list[str] = []
    for action in parser._actions:
        words += action.option_strings or [str(choice) for choice in action.choices or ()]
    return words


def _bash(words: dict[str, list[str]]) -> str:
    cases = "\n".join(f'        {name}) words="{" ".join(found)}";;' for name, found in words.items())
    return _BASH.format(alternatives="|".join(words), cases=cases, commands=" ".join(words))


def _zsh(words: dict[str, list[str]]) -> str:
    cases = "\n".join(f"        ({name}) found=({' '.join(found)});;" for name, found in words.items())
    return _ZSH.format(alternatives="|".join(words), cases=cases, commands=" ".join(words))


def _fish(words: dict[str, list[str]]) -> str:
    lines = ["# fish completion of cachefetch: cachefetch completion fish | source"]
    for name, (_, text) in _commands().items():
        quoted = text.replace("'", "\\'")
        lines.append(f"complete -c cachefetch -n __fish_use_subcommand -a {name} -d '{quoted}'")
        seen = f"'__fish_seen_subcommand_from {name}'"
        for word in words[name]:
            kind = "-l" if word.startswith("--") else "-s" if word.startswith("-") else "-a"
            lines.append(f"complete -c cachefetch -n {seen} {kind} {word.lstrip('-')}")
    return "\n".join(lines)
