"""Reads pickles without running them: a list of allowed names, and values instead of calls.

`read_pickle()` interprets the opcodes itself. A global that a pickle names becomes a `Global`, a call a `Call`, an object a `Call`
with a `state`: plain data, whatever the file says. Nothing is imported and nothing of the file is executed. A global that is not
on the list is refused where it is named, called or not.
"""
import pickletools
from dataclasses import dataclass, field

MAX_OPCODES = 50_000_000


class Refused(Exception):
    """The file asks for something that is not on the list, or is no whole pickle: where, expected, found."""


@dataclass(frozen=True)
class Global:
    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclass
class Call:
    """function(*arguments, **keywords) as the file would have it called, then changed by `state`, `items` and `pairs`."""

    function: object
    arguments: tuple
    state: object = None
    items: list = field(default_factory=list)
    pairs: list = field(default_factory=list)
    keywords: dict = field(default_factory=dict)

    @property
    def name(self):
        return str(self.function)


@dataclass(frozen=True)
class PersistentId:
    value: object


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
             "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
             "BINBYTES8", "BYTEARRAY8"}


class _Machine:
    def __init__(self, where, allowed):
        self.where, self.allowed = where, allowed
        self.stack, self.memo = [], {}

    def fail(self, position, expected, found):
        raise Refused(f"{self.where}: byte {position}: expected {expected}, found {found}")

    def pop_mark(self):
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1:]
                del self.stack[index:]
                return values
        raise IndexError("no mark")

    def pop(self):
        value = self.stack.pop()
        if value is _MARK:
            raise IndexError("a mark where a value is due")
        return value

    def name(self, module, name, position):
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in self.allowed:
            self.fail(position, "one of the names that hold data", f"{module}.{name}: the file would run code")
        return Global(module, name)

    def call(self, function, arguments, position):
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            self.fail(position, "a call of a known name", f"one of {type(function).__name__}")
        return Call(function, arguments)

    def step(self, opcode, argument, position):
        """Returns True at the end."""
        name, stack = opcode.name, self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "STOP":
            return True
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.pop_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}[name]())
        elif name in ("TUPLE", "LIST"):
            stack.append({"TUPLE": tuple, "LIST": list}[name](self.pop_mark()))
        elif name == "FROZENSET":
            stack.append(frozenset(self.key(v, position) for v in self.pop_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            values = tuple(self.pop() for _ in range(count))[::-1]
            stack.append(values)
        elif name == "DICT":
            values = self.pop_mark()
            stack.append({})
            self.set_items(stack[-1], values, position)
        elif name == "APPEND":
            value = self.pop()
            self.extend(stack[-1], [value], position)
        elif name in ("APPENDS", "ADDITEMS"):
            values = self.pop_mark()
            self.extend(stack[-1], values, position)
        elif name == "SETITEM":
            value, key = self.pop(), self.pop()
            self.set_items(stack[-1], [key, value], position)
        elif name == "SETITEMS":
            values = self.pop_mark()
            self.set_items(stack[-1], values, position)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif name == "GLOBAL":
            module, attribute = argument.split(" ", 1)
            stack.append(self.name(module, attribute, position))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            stack.append(self.name(module, attribute, position))
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            stack.append(self.call(function, arguments, position))
        elif name == "NEWOBJ":
            arguments, function = self.pop(), self.pop()
            stack.append(self.call(function, arguments, position))
        elif name == "NEWOBJ_EX":
            keywords, arguments, function = self.pop(), self.pop(), self.pop()
            made = self.call(function, arguments, position)
            made.keywords = keywords
            stack.append(made)
        elif name == "BUILD":
            state = self.pop()
            if not isinstance(stack[-1], Call):
                self.fail(position, "an object to give a state to", type(stack[-1]).__name__)
            stack[-1].state = state
        elif name == "PERSID":
            stack.append(PersistentId(argument))
        elif name == "BINPERSID":
            stack.append(PersistentId(self.pop()))
        else:
            self.fail(position, "an opcode that holds data", name)
        return False

    def key(self, value, position):
        """Plain keys alone: hashing a tuple of tuples may take for ever."""
        if not isinstance(value, (str, int, float, bytes, type(None), Global)):
            self.fail(position, "a plain key", type(value).__name__)
        return value

    def extend(self, target, values, position):
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(self.key(v, position) for v in values)
        elif isinstance(target, Call):
            target.items.extend(values)
        else:
            self.fail(position, "a list to append to", type(target).__name__)

    def set_items(self, target, values, position):
        pairs = list(zip(values[::2], values[1::2]))
        if isinstance(target, dict):
            target.update((self.key(k, position), v) for k, v in pairs)
        elif isinstance(target, Call):
            target.pairs.extend(pairs)
        else:
            self.fail(position, "a dictionary to fill", type(target).__name__)


def read_pickle(stream, where, allowed):
    """The value of one pickle; `stream` stands behind it afterwards. allowed: set of (module, name). Raises Refused."""
    machine = _Machine(where, allowed)
    position = stream.tell()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                machine.fail(position, f"at most {MAX_OPCODES} opcodes", "more")
            if machine.step(opcode, argument, position):
                break
        if len(machine.stack) != 1 or machine.stack[0] is _MARK:
            machine.fail(position, "one value", str(len(machine.stack)))
        return machine.stack[0]
    except Refused:
        raise
    except RecursionError as error:
        raise Refused(f"{where}: byte {position}: expected a tree of some depth, found one without end") from error
    except (ValueError, IndexError, KeyError, TypeError, UnicodeError, OverflowError, MemoryError) as error:
        raise Refused(f"{where}: byte {position}: expected a whole pickle, found {type(error).__name__}: {error}") from error
