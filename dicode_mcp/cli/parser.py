"""The grammar of the command line: every command with its arguments and its help.

Each command names its handler as ``module:function`` in ``commands/``; it is imported when called.
"""

from __future__ import annotations

import argparse
from typing import Any

from dicode_mcp import __version__

RUN_STATUSES = "queued running waiting success failure timeout cancelled skipped lost".split()
TASK_STATES = ["ready", "broken", "pending_approval", "unavailable", "conflict", "paused"]
LEVELS = ["debug", "info", "warn", "error", "security"]

_EPILOG = """\
exit codes: 0 ok · 1 failed run or refused call · 2 wrong usage or config · 3 server not reachable
start here: dicode serve --detach && dicode list"""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of ``dicode``."""
    common = _common()
    parser = _Parser(
        prog="dicode",
        description="Drive the dicode automation server. Every command calls one of its MCP tools.",
        epilog=_EPILOG,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dicode {__version__}")
    commands = Commands(parser, common)
    _server(commands)
    _tasks(commands)
    _runs(commands)
    _sources(commands)
    _registries(commands)
    _secrets(commands)
    _keys(commands)
    _passphrase(commands)
    _permissions(commands)
    _audit(commands)
    _backup(commands)
    _service(commands)
    _setup(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse with our two-line form of a usage error."""

    def error(self, message: str) -> Any:
        self.exit(2, f"dicode: {message}\n  see `{self.prog} --help`\n")


def _common() -> argparse.ArgumentParser:
    # SUPPRESS, so that an option before the command is not reset by the command's own parser.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("everywhere")
    group.add_argument("--data-dir", metavar="DIR", help="the server's data dir (~/.dicode)")
    group.add_argument("--config", metavar="FILE", help="the config file (./dicode.yaml, …)")
    group.add_argument("--json", action="store_true", help="print the server's result untouched")
    return common


class Commands:
    """Adds commands with the options that all of them take."""

    def __init__(self, parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
        # Without prog argparse lays out a usage line to find it, and imports much to do so.
        self._group: Any = parser.add_subparsers(
            title="commands", metavar="COMMAND", prog=parser.prog
        )
        self._common = common

    def add(
        self,
        name: str,
        handler: str | None,
        help: str,
        *,
        aliases: tuple[str, ...] = (),
        description: str | None = None,
        add_help: bool = True,
    ) -> argparse.ArgumentParser:
        """Add a command; without a ``handler`` it only groups others."""
        parser: argparse.ArgumentParser = self._group.add_parser(
            name,
            help=help,
            aliases=list(aliases),
            description=description or help,
            parents=[self._common],
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(parser=parser, **({"handler": handler} if handler else {}))
        return parser

    def under(self, parser: argparse.ArgumentParser) -> Commands:
        """Give the commands of a group."""
        return Commands(parser, self._common)


def _server(commands: Commands) -> None:
    serve = commands.add(
        "serve", "server:serve", "run the server in this terminal", aliases=("daemon",)
    )
    serve.add_argument(
        "-d", "--detach", action="store_true", help="run it in the background, return when ready"
    )
    _serve_options(serve)
    stop = commands.add("stop", "server:stop", "end the server and wait until it is gone")
    _stop_options(stop)
    restart = commands.add(
        "restart",
        "server:restart",
        "end the server and start it again in the background",
        description="End the server and start it in the background, as it was started last unless"
        " options are given.",
    )
    _stop_options(restart)
    _serve_options(restart)
    commands.add("status", "server:status", "show what the server is doing")
    mcp = commands.add(
        "mcp",
        "mcp:mcp",
        "speak MCP on standard input and output; starts the server when none runs",
    )
    mcp.add_argument("--read-only", action="store_true", help="only tools that change nothing")
    mcp.add_argument("--toolsets", metavar="A,B", help="only these toolsets")
    mcp.add_argument("--tasks", metavar="GLOB", help="only tasks whose id matches (A,B for more)")


def _serve_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument("--port", type=int, metavar="N", help="the HTTP port (8080)")
    group.add_argument("--host", metavar="ADDR", help="the HTTP address (127.0.0.1)")
    group.add_argument("--no-http", action="store_true", help="serve only the local socket")
    group.add_argument(
        "--log-level", choices=["debug", "info", "warn", "error"], help="how much the log says"
    )
    group.add_argument(
        "--source",
        action="append",
        metavar="PATH",
        help="a folder of tasks, beside those of the config; may be repeated",
    )


def _stop_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=float, default=40.0, metavar="S", help="how long to wait for it to end"
    )


def _service(commands: Commands) -> None:
    service = commands.under(
        commands.add("service", None, "run the server as a service: at login, and after a crash")
    )
    install = service.add(
        "install",
        "service:install",
        "make the server a service of systemd (Linux) or launchd (macOS) and start it",
        description="Write the service's file for this user, start the service and wait until the"
        " server answers.\nThe config file, the data dir, the tasks' folder and PATH are those of"
        " this call. Doing it again changes only what differs.",
    )
    install.add_argument("--print", action="store_true", help="only show the file")
    install.add_argument("--force", action="store_true", help="overwrite a file not written by us")
    _serve_options(install)
    service.add("status", "service:status", "say whether the service is installed and running")
    remove = service.add("remove", "service:remove", "end the service and remove its file")
    remove.add_argument("--force", action="store_true", help="remove a file not written by us")


def _tasks(commands: Commands) -> None:
    listing = commands.add("list", "tasks:list_tasks", "list the tasks", aliases=("ls",))
    listing.add_argument("query", nargs="?", help="words to look for in id, name, description")
    listing.add_argument("--tag", help="only tasks with this tag")
    listing.add_argument("--source", metavar="NAME", help="only tasks of this source")
    listing.add_argument("--status", choices=TASK_STATES, help="only in this state")
    _page_options(listing)
    get = commands.add("get", "tasks:get_task", "show one task: what it is, needs and last did")
    get.add_argument("id", help="the task's id")
    get.add_argument("--explain", action="store_true", help="say where each value comes from")
    for name, text in (("enable", "let a paused task run again"), ("disable", "pause a task")):
        command = commands.add(name, f"tasks:{name}", text)
        command.add_argument("id", help="the task's id")
    folders = commands.under(commands.add("task", None, "work on task folders"))
    validate = folders.add(
        "validate", "tasks:validate", "check a task folder, a task.yaml or a loaded task"
    )
    validate.add_argument("target", metavar="PATH|ID", help="a folder, a task.yaml, or a task id")
    new = folders.add(
        "new",
        "authoring:new_task",
        "make a task from a template",
        description="Make a task's folder with task.yaml, a script and a test; it is live at once.",
    )
    new.add_argument("id", help="the task's id: its folder below the source")
    new.add_argument("--source", metavar="NAME", help="the source (the first one that is local)")
    new.add_argument(
        "--template", choices=["python", "deno"], default="python", help="the script's language"
    )
    new.add_argument(
        "--trigger",
        choices=["manual", "cron", "webhook", "chain", "daemon"],
        default="manual",
        help="what starts it",
    )
    new.add_argument(
        "--on", metavar="VALUE", help="the cron schedule, the webhook path, or the task before"
    )
    new.add_argument("--name", help="a name for people")
    new.add_argument("--description", metavar="TEXT", help="what it does")
    search = folders.add(
        "search", "registries:search", "search the registries for tasks to install"
    )
    search.add_argument("words", metavar="WORD", nargs="+", help="each has to be found")
    search.add_argument("--registry", metavar="NAME", help="only this registry")
    search.add_argument("--limit", type=int, metavar="N", help="at most this many")
    _shared(folders)


def _shared(folders: Commands) -> None:
    install = folders.add(
        "install",
        "sharing:install",
        "add somebody's task to a TaskSet, pinned to the commit that is shown",
        description="Add a task that a registry offers, or one in a git repository, to a TaskSet."
        "\nNothing of it runs before you have approved what it may do.",
    )
    install.add_argument("task", metavar="NAME|GIT_URL", help="as `task search` shows it, or a URL")
    install.add_argument("--as", dest="key", metavar="KEY", help="the new entry's key")
    install.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="params.x=y",
        help="a param's value; may be repeated",
    )
    install.add_argument("--source", metavar="S", help="the source whose TaskSet gets it")
    install.add_argument("--path", metavar="P", help="a folder or set file in the repository")
    version = install.add_mutually_exclusive_group()
    version.add_argument("--branch", metavar="B", help="a branch (main)")
    version.add_argument("--tag", metavar="T", help="a tag")
    version.add_argument("--commit", metavar="C", help="a commit (40 hex digits)")
    update = folders.add(
        "update",
        "sharing:update",
        "show what a newer version of an installed task changes, and take it",
        description="Ask for the newest commit of an installed entry, show what it changes and pin"
        " it.\nThe old version stays in force until you approve the new one.",
    )
    update.add_argument("id", metavar="ID", help="the entry's key or id")
    to = update.add_mutually_exclusive_group()
    to.add_argument("--tag", metavar="T", help="a tag to move to")
    to.add_argument("--commit", metavar="C", help="a commit to move to (40 hex digits)")
    update.add_argument("--dry-run", action="store_true", help="only show what would change")
    approve = folders.add(
        "approve",
        "approvals:approve",
        "let a version that waits come in force, after you have seen what it may do",
        description="Show what a version that waits may do and what is new in it, and ask you."
        "\nOnly on a terminal: an approval is a human's.",
    )
    approve.add_argument("id", metavar="ID", help="the task's id")
    approve.add_argument(
        "--hash", metavar="HASH", help="the version that was reviewed; another is not approved"
    )
    uninstall = folders.add("uninstall", "sharing:uninstall", "take an entry out of its TaskSet")
    uninstall.add_argument("id", metavar="ID", help="the entry's whole key or id")


def _page_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, metavar="N", help="at most this many")
    parser.add_argument("--cursor", help="go on where `next_cursor` of the last page says")


def _runs(commands: Commands) -> None:
    run = commands.add(
        "run",
        "run:run",
        "run a task and wait for its end",
        description="Run a task. Its return value goes to standard output, the rest to standard"
        " error.\nCtrl-C leaves the run alive and says its id."
        " `dicode run ID --help` shows the task's params.",
        add_help=False,
    )
    run.add_argument("-h", "--help", action="store_true", help="show this, or the task's params")
    run.add_argument("id", nargs="?", help="the task's id")
    run.add_argument("params", nargs="*", metavar="k=v", help="a param; its type is the task's")
    run.add_argument(
        "--param-json",
        action="append",
        default=[],
        metavar="k=JSON",
        help="a param written as JSON; may be repeated",
    )
    run.add_argument(
        "--input", metavar="FILE", help="the input: a file, or - for standard input (JSON or text)"
    )
    run.add_argument("--wait", type=float, metavar="S", help="wait at most S seconds (then exit 1)")
    run.add_argument("--no-wait", action="store_true", help="print the run id and return")
    run.add_argument("-f", "--follow", action="store_true", help="show log lines as they come")
    run.add_argument("--idempotency-key", metavar="KEY", help="same key, same run, for 24 h")
    run.add_argument(
        "--priority", type=int, metavar="N", help="-100 to 100: higher starts first (the task's)"
    )
    runs = commands.add("runs", "runs:list_runs", "list runs, newest first")
    runs.add_argument("task", nargs="?", help="only runs of this task")
    runs.add_argument("--status", choices=RUN_STATUSES, metavar="STATUS", help="e.g. failure")
    runs.add_argument("--since", metavar="WHEN", help="an ISO 8601 time, or a span such as 2h")
    runs.add_argument("--tree", metavar="RUN", help="show what led to a run, and what it led to")
    runs.add_argument("--given", metavar="RUN", help="show what a run began with, secrets left out")
    _page_options(runs)
    logs = commands.add("logs", "logs:logs", "show the log of a run")
    logs.add_argument("run", help="the run's id")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    logs.add_argument("--level", choices=LEVELS, help="only this level and above")
    answer = commands.add(
        "answer",
        "answer:answer",
        "answer what a waiting run asks",
        description="Answer the question of a run that is waiting (`dicode runs --status waiting`)."
        "\nWithout an answer you are asked on the terminal. Each question takes one answer.",
    )
    answer.add_argument("run", help="the run's id")
    answer.add_argument(
        "params", nargs="*", metavar="k=v", help="a field of the answer; its type is the question's"
    )
    answer.add_argument("--decline", action="store_true", help="refuse to answer")
    answer.add_argument(
        "--question", type=int, metavar="N", help="the question that was seen (the open one)"
    )
    answer.add_argument("-f", "--follow", action="store_true", help="show how the run goes on")
    replay = commands.add(
        "replay",
        "replay:replay",
        "start a run again with what it was started with",
        description="Start a run's task again with the params, input and request of that run,"
        " or edited ones.\nThe version of the task that is in force now runs.",
    )
    replay.add_argument("run", help="the run's id")
    replay.add_argument("params", nargs="*", metavar="k=v", help="params to change")
    replay.add_argument(
        "--param-json", action="append", default=[], metavar="k=JSON", help="a param as JSON"
    )
    replay.add_argument("--input", metavar="FILE", help="another input: a file, or - for stdin")
    replay.add_argument("--wait", type=float, metavar="SECONDS", help="wait so long at most")
    replay.add_argument("--no-wait", action="store_true", help="start it and print its id")
    replay.add_argument("-f", "--follow", action="store_true", help="show its log while it is on")
    replay.add_argument("--idempotency-key", metavar="KEY", help="same key, same run")
    cancel = commands.add("cancel", "runs:cancel", "end a run and its processes")
    cancel.add_argument("run", help="the run's id")
    _history(commands)


def _history(commands: Commands) -> None:
    stats = commands.add(
        "stats",
        "history:stats",
        "sum up runs by task and day: failures, p50 and p95",
        description="Sum up ended runs by task and UTC day. The sums stay when runs are pruned.",
    )
    stats.add_argument("task", nargs="?", help="only this task")
    stats.add_argument("--since", metavar="DAY", help="2026-05-01, or a span such as 30d (a week)")
    stats.add_argument("--until", metavar="DAY", help="the last day (today)")
    stats.add_argument("--limit", type=int, metavar="N", help="at most this many rows (50)")
    prune = commands.add(
        "prune",
        "history:prune",
        "delete old runs now, by the retention rules or by age",
        description="Delete runs that the retention rules would not keep, or that ended longer ago"
        " than --older-than.\nNever unfinished or pinned ones. The sums of `dicode stats` stay.",
    )
    prune.add_argument("--dry-run", action="store_true", help="only tell what would go")
    prune.add_argument("--task", metavar="ID", help="only runs of this task")
    prune.add_argument("--older-than", metavar="AGE", help="a duration such as 7d or 12h")
    pin = commands.add("pin", "history:pin", "keep a run whatever the retention says")
    pin.add_argument("run", help="the run's id")
    pin.add_argument("--off", action="store_true", help="let it go again")


def _sources(commands: Commands) -> None:
    source = commands.under(commands.add("source", None, "work with the sources of tasks"))
    source.add("list", "sources:list_sources", "list the sources and their state")
    sync = source.add("sync", "sources:sync", "read a source again now")
    sync.add_argument("name", help="the source's name")
    follow = sync.add_mutually_exclusive_group()
    follow.add_argument("--commit", metavar="ID", help="stay at this commit (40 hex digits)")
    follow.add_argument("--unpin", action="store_true", help="follow the branch again")
    dev = source.add(
        "dev",
        "sources:dev",
        "let a source show other files than its own, to try changes",
        description="Switch dev mode of a source. Without an option only the dev_refs of its"
        " TaskSets are used. It lasts until --disable, restarts included.",
    )
    dev.add_argument("name", help="the source's name")
    place = dev.add_mutually_exclusive_group()
    place.add_argument("--local-path", metavar="P", help="show this folder (or taskset.yaml)")
    place.add_argument("--branch", metavar="B", help="show a working clone of this branch")
    place.add_argument("--disable", action="store_true", help="back to the source's own files")


def _registries(commands: Commands) -> None:
    registry = commands.under(commands.add("registry", None, "look after a registry of tasks"))
    lint = registry.add(
        "lint",
        "registries:lint",
        "check the files of a registry; needs no server",
        description="Check a registry's set and every entry of it, for its CI. Exit code 1 when"
        " there are errors.",
    )
    lint.add_argument(
        "path", metavar="PATH", nargs="?", default=".", help="a folder or a set's file (.)"
    )
    lint.add_argument(
        "--fetch", action="store_true", help="also fetch each repository and read what is there"
    )
    lint.add_argument("--strict", action="store_true", help="count warnings as errors")
    lint.add_argument(
        "--allow-private",
        action="store_true",
        help="URLs may lead to a private network: a registry for one company",
    )


def _secrets(commands: Commands) -> None:
    secrets = commands.under(commands.add("secrets", None, "keep values that tasks need to know"))
    put = secrets.add(
        "set",
        "secrets:set_secret",
        "set a secret; its value is asked for, or read from standard input",
        description="Set a secret. The value is asked for without showing it, or read from"
        " standard input (one line end at its end is no part of it).\nIt is never an argument.",
    )
    put.add_argument("name", metavar="NAME", help="as env entries say it: {secret: NAME}")
    place = put.add_mutually_exclusive_group()
    place.add_argument("--from-env", metavar="VAR", help="a variable of the server's environment")
    place.add_argument("--from-file", metavar="PATH", help="a file on the server's machine")
    secrets.add("list", "secrets:list_secrets", "list the names, and who uses them")
    delete = secrets.add("delete", "secrets:delete", "forget a secret for good")
    delete.add_argument("name", metavar="NAME", help="the secret's name")
    secrets.add(
        "rotate",
        "secrets:rotate",
        "make a new master key and seal every secret with it",
        description="Make a new master key, seal every secret with it, then forget the old key."
        "\nBackups made before need the key that was saved with them.",
    )


def _keys(commands: Commands) -> None:
    keys = commands.under(commands.add("keys", None, "let others call the server over HTTP"))
    create = keys.add(
        "create",
        "keys:create",
        "make a key; it is shown once",
        description="Make a key for the HTTP side. A scope is a verb (read run author approve"
        " secrets admin) for all tasks, or VERB:GLOB for those that the glob names, e.g."
        " run:infra/*. No verb implies another; whoever may act on a task may read it.",
    )
    create.add_argument("--name", required=True, metavar="N", help="who gets it, for the audit log")
    create.add_argument(
        "--scopes", required=True, nargs="+", metavar="V[:GLOB]", help="what it may do"
    )
    create.add_argument("--expires", metavar="AGE", help="how long it lasts, e.g. 90d")
    keys.add("list", "keys:list_keys", "list the keys, their scopes and their last use")
    revoke = keys.add("revoke", "keys:revoke", "end a key at once")
    revoke.add_argument("key", metavar="KEY", help="its id or name")


def _passphrase(commands: Commands) -> None:
    passphrase = commands.under(
        commands.add("passphrase", None, "let the owner log in to the pages in a browser")
    )
    passphrase.add(
        "set",
        "passphrase:set_passphrase",
        "set the passphrase, from a prompt or standard input",
        description="Set the passphrase with which you log in at /login. Whoever is logged in is"
        " logged out.",
    )


def _permissions(commands: Commands) -> None:
    permissions = commands.under(
        commands.add("permissions", None, "what tasks use of what they may do")
    )
    suggest = permissions.add(
        "suggest",
        "permissions:suggest",
        "write the smallest permissions a task needs",
        description="Write the smallest permissions block for a task, to paste into its task.yaml,"
        " from what\nits last 20 runs used and were refused. Notes go to standard error.",
    )
    suggest.add_argument("id", metavar="TASK", help="the task")
    suggest.add_argument("--diff", action="store_true", help="show the change to what is declared")


def _audit(commands: Commands) -> None:
    audit = commands.add(
        "audit",
        "audit:audit",
        "show who did what to the server",
        description="Show the audit log: every control action and refused call, newest first.",
    )
    audit.add_argument("--action", metavar="NAME", help="only this action, e.g. run_task")
    audit.add_argument(
        "--actor",
        metavar="NAME",
        help="only this actor, e.g. local, or those that begin so: key:ci*",
    )
    audit.add_argument("--target", metavar="T", help="only this target; ends with * for its start")
    audit.add_argument("--since", metavar="WHEN", help="an ISO 8601 time, or a span such as 2h")
    _page_options(audit)
    whole = audit.add_mutually_exclusive_group()
    whole.add_argument(
        "--export", metavar="FILE", help="write what matches as JSON lines, oldest first; - prints"
    )
    whole.add_argument(
        "--verify", action="store_true", help="check that no entry was changed or taken out"
    )
    audit.add_argument(
        "--offline", action="store_true", help="with --verify: check the data dir without a server"
    )
    audit.add_argument("--backup", metavar="FILE", help="with --verify: check a backup's audit log")
    audit.add_argument("--key", metavar="FILE2", help="with these: the master key, if it is apart")


def _backup(commands: Commands) -> None:
    backup = commands.add(
        "backup",
        "backup:backup",
        "save the server's state into a file",
        description="Save runs, secrets (sealed), keys, approvals, the audit log, installed tasks"
        "\nand the config file. It works while the server runs and without one. The master key"
        " is never in it.",
    )
    backup.add_argument("file", metavar="FILE", help="where to; by habit it ends with .tar.gz")
    backup.add_argument("--key", metavar="FILE2", help="save the master key too, apart, mode 600")
    backup.add_argument("--logs", action="store_true", help="with the log lines of runs")
    backup.add_argument("--force", action="store_true", help="replace files that are there")
    restore = commands.add(
        "restore",
        "backup:restore",
        "bring the server's state back from a file",
        description="Make a data dir from what `dicode backup` wrote. No server may use it"
        " meanwhile.",
    )
    restore.add_argument("file", metavar="FILE", help="what `dicode backup` wrote")
    restore.add_argument("--key", metavar="FILE2", help="the master key that was saved apart")
    restore.add_argument(
        "--force", action="store_true", help="also where there is a state: it is put aside"
    )


def _setup(commands: Commands) -> None:
    commands.add("doctor", "doctor:doctor", "check this machine and say what to mend")
    schema = commands.add("schema", "setup:schema", "print the JSON Schema of a file, for editors")
    schema.add_argument("of", nargs="?", choices=["task", "config"], default="task")
    config = commands.add(
        "mcp-config", "setup:mcp_config", "print what connects an MCP client to this server"
    )
    config.add_argument("client", nargs="?", choices=["claude", "cursor", "vscode"])
    commands.add("demo", "setup:demo", "show the whole thing on a temporary data dir")
