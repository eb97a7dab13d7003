"""``run``: compute or submit a config, or a sweep of them, from the shell."""

import contextlib
import functools
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exca_like.cli import words
from exca_like.cli.options import Json, check_is_no_part, importing, is_said, print_json, print_text, wrong_input
from exca_like.cli.wording import in_shell

HERE = (None, "debug")  # clusters that are this process
_MANY = 10_000  # configs, which take seconds to be made
_ASKED = 20  # failed configs that are asked whether their code has changed

if TYPE_CHECKING:
    from types import TracebackType

    from exca_like.sweeps import Sweep


def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:CLASS[.METHOD]", help="The class of the config.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE|@FILE.yaml",
            help="Values of fields, like optim.lr=0.1 or infra.cluster=slurm; several make a sweep: lr=0.1,0.01 seed=range(5), "
            "zip(a,b)=(1,x),(2,y).",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            envvar="EXCA_LIKE_FOLDER",
            help="The cache root, in place of the folder of the class; from the environment, only if that has none.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be computed.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Only print the whole config, as yaml or JSON; of a sweep all.")
    ] = False,
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="Only so many configs of a sweep; 0: all.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for jobs, and print what came out.")] = False,
    tasks_per_job: Annotated[int, typer.Option(min=1, help="How many configs of a sweep each job computes.")] = 1,
    json: Json = False,
) -> None:
    """Compute the method of a config, or submit it if its infra has a cluster."""
    cls, method = target_of(target)
    said = words.read(fields or [])
    if folder is not None:
        check_is_no_part(folder)
    config = made(cls, said, folder, replaces=is_said(context, "folder"))
    if print_config and not said.grid:
        _print_configs([config], json=json, is_one=True)
        return
    name = infra_of(config, method)
    infra = getattr(config, name)
    if infra.folder is None and not print_config:
        typer.echo(f"nothing is kept, as {name} has no folder: give one, like --folder cache", err=True)
    configs: Any = ()
    try:
        if not said.grid:
            _single(config, name, dry_run=dry_run, wait=wait, json=json)
            return
        import exca_like
        from exca_like.grids import Grid

        with wrong_input("FIELD=VALUE"):
            many = len(Grid(said.grid, said.zips))
            if many > _MANY and sys.stderr.isatty():
                typer.echo(f"making {many:,} configs; Ctrl-C ends it", err=True)
            configs = exca_like.sweep(config, said.grid, zip=said.zips, infra=name)
        configs = configs[:number] if number else configs
        if print_config:
            _print_configs(configs, json=json)
        else:
            _sweep(configs, name, dry_run=dry_run, wait=wait, tasks_per_job=tasks_per_job, json=json)
    except KeyboardInterrupt:
        infras = [getattr(one, name) for one in (configs if said.grid else [config])]
        if infras and infra.folder is not None and not (dry_run or print_config):
            say_what_goes_on(infra.folder, infras)
            if infra.cluster in HERE and said.grid and infra._mode() != "force":
                done = sum(one.status() == "completed" for one in infras)
                typer.echo(f"{done} of {len(infras)} results are stored: the same command goes on with the others", err=True)
        raise


def say_what_goes_on(folder: str | Path, infras: Iterable[Any]) -> None:
    """Say, to who has interrupted a command, what does not end with it, and what ends it."""
    sent = [infra for infra in infras if infra.cluster not in HERE]
    if not sent:
        return
    handles = [infra._handle() for infra in sent if infra.status() == "running"]
    jobs = {handle.job_id for handle in handles if handle is not None}
    arrays = {job.partition("_")[0] for job in jobs}
    named, ends = ("UID", "ends one") if len(arrays) != 1 else (arrays.pop(), "ends all of the array")
    if len(jobs) == 1:
        named, ends = jobs.pop(), "ends it"
    place = f"--folder {shlex.quote(os.path.relpath(folder))}"
    typer.echo(
        f"jobs that were submitted go on: `exca-like status --watch {place}` shows them, "
        f"`exca-like cancel {named} {place} --yes` {ends}",
        err=True,
    )


def _print_configs(configs: Iterable[Any], *, json: bool, is_one: bool = False) -> None:
    """Print configs as documents of yaml, or in JSON."""
    from exca_like.confdict import verbatim
    from exca_like.models.export import export

    every = (verbatim(export(config, uid=False, exclude_defaults=False)) for config in configs)
    if json:
        print_json(next(every) if is_one else list(every))
    else:
        typer.echo("---\n".join(config.to_yaml() for config in every), nl=False)


def computing(*, json: bool) -> contextlib.AbstractContextManager[Any]:
    """A block in which the user's code may print: if the output is JSON, that goes to where errors go."""
    return contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext()


def _single(config: Any, name: str, *, dry_run: bool, wait: bool, json: bool) -> None:
    from exca_like.errors import CodeChangedWarning, ExcaLikeError, JobInterruptedError, RemoteError

    infra = getattr(config, name)
    uid = infra.uid()  # what is wrong with the class is said as of any command
    is_here = infra.cluster is None or infra.folder is None
    has_failed = infra.folder is not None and infra._mode() == "cached" and infra.status() == "failed"
    with computing(json=json):
        job = None if dry_run or is_here else infra.job()
    if job is not None and not json:
        print_text(f"{uid}: job {job.job_id}, {_standing(infra)}")
    results, failure = [], None
    if not dry_run and (is_here or wait or infra.cluster == "debug" or infra.status() in ("completed", "failed")):
        try:
            with computing(json=json), warnings.catch_warnings():
                if has_failed:  # that they are of other code is said below
                    warnings.simplefilter("ignore", CodeChangedWarning)
                results = [_result(infra) if job is None else job.result()]
        except (Exception, SystemExit) as error:
            is_own = isinstance(error, ExcaLikeError) and not isinstance(error, RemoteError)
            if job is None and is_own:  # what it says is enough
                raise
            from exca_like.cachedict.failures import Failure

            failure = Failure.of(error.with_traceback(_of_user(error.__traceback__) if job is None else None))
            text = failure.traceback.rstrip("\n")  # what the user's code says stays as it is
            print_text(in_shell(text, uid, infra.folder) if isinstance(error, ExcaLikeError) else text, err=True)
            if isinstance(error, JobInterruptedError):
                _tell_of_memory(str(error), infra)
            _tell_failed_before([infra] * has_failed, name)
    if json:
        status = "completed" if results else "failed" if failure else _standing(infra)
        about = {"uid": uid, "status": status, "job": job and job.job_id}
        print_json(about | ({"result": results[0]} if results else {}))
    elif dry_run:
        print_text(f"{uid}: {_standing(infra)}")
    for result in results if not json else ():
        print_text(repr(result))
    if failure is not None:
        raise typer.Exit(1)


def _of_user(traceback: "TracebackType | None") -> "TracebackType | None":
    """A traceback from the first line on that is not of this package; None if all are: beside it is that of the computation."""
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith("exca_like."):
        traceback = traceback.tb_next
    return traceback


def _tell_failed_before(infras: Sequence[Any], name: str) -> None:
    """Say of errors that were stored before how they are computed again."""
    if not infras:
        return
    code = ", by other code than there is now" if any(one.explain().changes for one in infras[:_ASKED]) else ""
    what = f"{infras[0].uid()} failed {_ago(infras[0])}" if len(infras) == 1 else f"{len(infras)} of them failed before"
    again = f"the same command with {name}.mode=retry computes {'it' if len(infras) == 1 else 'them'} again"
    print_text(f"{what}{code}, and that counts: {again}", err=True)


def _ago(infra: Any) -> str:
    """How long ago an error was stored; of a job that left none, that is not known."""
    from exca_like import tables
    from exca_like.errors import NotCachedError

    try:
        time = infra.provenance().time
    except NotCachedError:
        time = None
    return "before" if time is None else tables.ago(time.timestamp())


def _tell_of_memory(said: str, infra: Any) -> None:
    """Say how what was killed gets more memory, if that may have been the reason."""
    if "SIGKILL" not in said:
        return
    more = f"give more with {infra._field_name()}.mem_gb"
    if infra._resources().mem_gb:
        more += ", or `exca-like retry --lost --mem x2`"
    print_text(f"if memory ran out, {more}", err=True)


def _standing(infra: Any) -> str:
    """How a task stands, in the words of the status of sweeps: what waits is queued."""
    status: str = infra.status()
    if status != "running":
        return status
    from exca_like.sweep_status import row_of

    return row_of({}, infra).status


def _result(infra: Any) -> Any:
    return getattr(infra._linked_state.owner, infra._linked_state.applied.name)()


def _sweep(configs: "Sweep[Any]", name: str, *, dry_run: bool, wait: bool, tasks_per_job: int, json: bool) -> None:
    from exca_like.failures import FailureReport

    plan = configs.plan()
    if not json:
        print_text(plan)
    infras = [getattr(one, name) for one in configs] if plan.failed and not dry_run else []
    before = [infra for infra in infras if infra.status() == "failed"]
    is_awaited = not dry_run and (wait or getattr(configs[0], name).cluster in HERE)
    with computing(json=json):
        if not dry_run:
            configs.submit(tasks_per_job=tasks_per_job)
        if is_awaited:
            configs.wait()
    if json:
        print_json({"plan": vars(plan), "configs": [vars(row) for row in configs.status().rows]})
    elif dry_run or is_awaited:
        print_text(configs.status())
    else:
        folder = shlex.quote(os.path.relpath(getattr(configs[0], name).folder))
        print_text(f"submitted: see `exca-like status --watch --folder {folder}`")
    failed = configs.failures() if is_awaited else FailureReport(())
    if len(failed) or failed.lost:
        print_text(failed if len(failed) else failed.of_lost(), err=True)
    if failed.lost:
        print_text("the same command submits again what was lost", err=True)
        _tell_of_memory(failed.of_lost(), getattr(configs[0], name))
    _tell_failed_before(before, name)
    if is_awaited and any(row.status != "completed" for row in configs.status().rows):
        raise typer.Exit(1)


def target_of(text: str) -> tuple[type[Any], str | None]:
    """The class that is named, and the method, if one is."""
    from exca_like.sources import closest

    module_name, sign, path = text.partition(":")
    if not sign or not path:
        msg = f"{text!r} is not of the form MODULE:CLASS, like train:Train or project.train:Train.run"
        raise typer.BadParameter(msg, param_hint="MODULE:CLASS")
    if module_name.endswith(".py"):
        path_here = os.path.relpath(module_name)
        if path_here.startswith(".."):
            msg = f"{module_name} is not below the current folder: go to its folder first"
            raise typer.BadParameter(msg, param_hint="MODULE:CLASS")
        module_name = path_here.removesuffix(".py").replace(os.sep, ".")
    with importing():
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            msg = f"there is no module {error.name!r} in {os.getcwd()}, nor among what is installed"
            raise typer.BadParameter(msg, param_hint="MODULE:CLASS") from None
    first, *others = path.split(".")
    cls: Any = getattr(found, first, None)
    method = None
    for one in others:
        inner = getattr(cls, one, None)
        if isinstance(inner, type):
            cls = inner
        else:
            method = one
            break
    if not _is_config(cls):
        if callable(cls) and not isinstance(cls, type):
            msg = f"{path} of {module_name} is a function: from the shell, only methods of configs are run"
            raise typer.BadParameter(msg, param_hint="MODULE:CLASS")
        there = [name for name, value in vars(found).items() if _is_config(value) and value.__module__ == found.__name__]
        near = closest(path, there)
        hint = f"; did you mean {near}?" if near else f": there are {', '.join(there)}" if there else ", nor any other"
        msg = f"{module_name} has no config {path!r}{hint}"
        raise typer.BadParameter(msg, param_hint="MODULE:CLASS")
    return cls, method


def _is_config(value: Any) -> bool:
    import pydantic

    return isinstance(value, type) and issubclass(value, pydantic.BaseModel)


def made(cls: type[Any], said: words.Words, folder: Path | None, *, replaces: bool) -> Any:
    """The config to start from; fields that are swept have the first of their values.

    Infras without a folder have the given one; others, too, if it ``replaces`` what their class says.
    """
    import difflib

    import pydantic

    from exca_like.confdict import ConfDict
    from exca_like.dotted import escape
    from exca_like.grids import LIST_ERRORS
    from exca_like.infra.applied import FIELDS
    from exca_like.models.clone import changes_of

    def changed(config: ConfDict, changes: dict[str, Any]) -> ConfDict:
        return config | changes_of(cls, changes)

    values = functools.reduce(changed, said.single, ConfDict())
    for name, field in getattr(cls, FIELDS, {}).items():
        if folder is not None and (replaces or field.default.folder is None) and f"{name}.folder" not in values:
            if folder.is_file():
                msg = f"{folder} is a file, and no folder"
                raise typer.BadParameter(msg, param_hint="--folder")
            values[f"{name}.folder"] = str(folder)
    values = functools.reduce(changed, ({name: several[0]} for name, several in said.grid.items()), values)

    def is_wrong(name: str, value: Any) -> bool:
        try:
            cls(**changed(values, {name: value}))
        except pydantic.ValidationError as error:
            return any(".".join(escape(str(part)) for part in one["loc"]) == name for one in error.errors())
        return False

    values = changed(values, _tags_of_defaults(cls, values))

    # a text that looks like a number, for a field that takes only texts
    for name, several in said.grid.items():
        texts = said.texts[name] if len(said.texts[name]) == len(several) else list(map(str, several))  # else it is a range
        for number, text in enumerate(texts):
            if type(several[number]) is not str and is_wrong(name, several[number]) and not is_wrong(name, text):
                several[number] = text
        values = changed(values, {name: several[0]})
    for name in said.texts.keys() - said.grid.keys():
        value, text = values.get(name), said.texts[name][0]
        if type(value) is not str and is_wrong(name, value) and not is_wrong(name, text):
            values = changed(values, {name: text})
    try:
        config = cls(**values)
    except pydantic.ValidationError as error:
        lines = []
        for one in error.errors():
            place = ".".join(map(str, one["loc"]))
            hint = ""
            if one["type"] == "extra_forbidden":
                near = difflib.get_close_matches(place, _names(cls), 1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(cls.model_fields)}"
            elif one["type"] in LIST_ERRORS and place in said.texts:
                hint = f"; for a list, write {place}=[{','.join(said.texts[place])}]"
            message = one["msg"].removeprefix("Value error, ")
            lines.append(f"  {place}: {message}{hint}" if place else f"  {message}")
        msg = f"no config of {cls.__name__}:\n" + "\n".join(lines)
        raise typer.BadParameter(msg, param_hint="FIELD=VALUE") from None
    _check_numbers(values, config)
    for name, several in said.grid.items():
        for value in several[1:]:
            if isinstance(value, str | list | dict):
                other = changed(values, {name: value})
                with contextlib.suppress(pydantic.ValidationError):  # the sweep tells it, with the values that go together
                    _check_numbers(other, cls(**other))
    return config


def _tags_of_defaults(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the class of parts of which only other fields are given: that of the default, as in Python."""
    import pydantic

    tags = {}
    try:
        cls(**values)
    except pydantic.ValidationError as error:
        for one in error.errors():
            field = cls.model_fields.get(str(one["loc"][0])) if len(one["loc"]) == 1 else None
            if one["type"] == "union_tag_not_found" and field is not None:
                name = one.get("ctx", {}).get("discriminator", "").strip("'")
                if hasattr(field.default, name):
                    tags[f"{one['loc'][0]}.{name}"] = getattr(field.default, name)
    return tags


def _check_numbers(given: Any, found: Any, above: str = "") -> None:
    """Raise for a text that pydantic takes for an integer, though it is none: of 0-3 it makes -3."""
    import pydantic

    if isinstance(given, Mapping):
        for name, value in given.items():
            inner = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
            _check_numbers(value, inner, f"{above}.{name}")
    elif isinstance(given, list) and isinstance(found, list | tuple):
        for number, (value, inner) in enumerate(zip(given, found, strict=False)):
            _check_numbers(value, inner, f"{above}.{number}")
    elif isinstance(given, str) and type(found) is int:
        try:
            float(given)
        except ValueError:
            with contextlib.suppress(pydantic.ValidationError):  # of a field with a validator of its own, that is taken
                if pydantic.TypeAdapter(int).validate_python(given) == found:
                    name = above.lstrip(".")
                    msg = f"{name}: {given!r} is no number; several values are written like {name}=0,1,2 or {name}=range(3)"
                    raise typer.BadParameter(msg, param_hint="FIELD=VALUE") from None


def _names(cls: type[Any], above: str = "") -> list[str]:
    """Dotted names of the fields of a class and of those within."""
    found = []
    for name, info in cls.model_fields.items():
        found.append(f"{above}{name}")
        if _is_config(info.annotation) and above.count(".") < 3:
            found += _names(info.annotation, f"{above}{name}.")
    return found


def infra_of(config: Any, method: str | None) -> str:
    """The name of the TaskInfra that a method goes through, or of the only one."""
    from exca_like.infra.applied import FIELDS
    from exca_like.infra.task import TaskInfra

    fields = getattr(type(config), FIELDS, {})
    tasks = {name: field.applied for name, field in fields.items() if isinstance(field.default, TaskInfra) and field.applied}
    found: list[str] = [name for name, applied in tasks.items() if method in (None, applied.name)]
    if len(found) == 1:
        return found[0]
    cls = type(config).__name__
    methods = ", ".join(f"{cls}.{applied.name}" for applied in tasks.values())
    others = {
        field.applied.name: type(field.default).__name__
        for name, field in fields.items()
        if field.applied is not None and name not in tasks
    }
    meant = next(iter(others), None) if method is None and not tasks else method
    if meant in others:
        what = "items" if others[meant] == "MapInfra" else "arguments"
        msg = (
            f"{cls}.{meant} has a {others[meant]}, whose {what} come from a call in Python, like {cls}().{meant}(...): from "
            "the shell, only methods with a TaskInfra are run"
        )
        raise typer.BadParameter(msg, param_hint="MODULE:CLASS")
    msg = f"{cls} has no method with a TaskInfra" if not tasks else f"say which method: {methods}"
    if method is not None and tasks:
        msg = f"{cls}.{method} has no TaskInfra: there are {methods}"
    raise typer.BadParameter(msg, param_hint="MODULE:CLASS")
