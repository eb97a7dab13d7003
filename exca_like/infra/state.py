"""What an infra knows beside its fields."""

from typing import TYPE_CHECKING, Any

from exca_like.infra.applied import AppliedMethod, InfraField

if TYPE_CHECKING:
    from exca_like.layout import EntryFolder


_OF_CONFIG = ("reduced", "parts", "policy", "roots", "code", "code_key", "is_coded", "identity")


class State:
    """What an infra knows beside its fields; not copied, not pickled."""

    kept: tuple[Any, Any, Any] = (None, None, None)  # a config, its method and the result, if that is kept in memory
    entry: "EntryFolder | None" = None
    exports: Any = None
    reduced: Any = None  # what the uid is made from, and the classes whose defaults are left out of it
    store: Any = None
    readers: Any = None  # see `exca_like.infra.readers`
    claims: Any = None
    job: Any = None
    uncached_job: Any = None  # the last one of mode "off"
    folder_is_checked = False
    recomputed = False
    forced = False  # whether a task was recomputed because its mode was "force"
    has_forced_parts: bool | None = None  # see `exca_like.infra.modes`; None: not known yet
    parts: tuple[Any, ...] | None = None  # see `exca_like.infra.modes.parts_of`
    compared: Any = None  # of a task a stored line, and the code that it was found to be of; of a map what is expected
    policy: Any = None  # what is done about changed code, once it was asked for
    roots: Any = None  # classes whose code counts; see `exca_like.infra.coded`
    code: Any = None  # the code that a job was sent with, as it is here
    code_key: str = ""  # what is in the uid of it
    is_coded = False  # whether there is
    steady_mode: Any = None  # the mode of all calls, if that is known

    def __init__(self, owner: Any, field: InfraField | None, applied: AppliedMethod | None) -> None:
        self.recomputed_items: set[str] = set()
        self.owner = owner
        self.field = field
        self.applied = applied

    def for_folder(self, entry: "EntryFolder") -> "State":
        """What is known of the config, without what is known of its folder, for another one."""
        new = type(self)(self.owner, self.field, self.applied)
        new.__dict__.update({name: self.__dict__[name] for name in _OF_CONFIG if name in self.__dict__})
        new.entry = entry
        return new
