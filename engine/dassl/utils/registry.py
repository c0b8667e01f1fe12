"""Name -> class registries."""

from .tools import check_availability

__all__ = ["Registry"]


class Registry:
    """Map names to classes or functions, in registration order.

    >>> TRAINERS = Registry("TRAINER")
    >>> @TRAINERS.register()
    ... class MyTrainer: ...
    >>> TRAINERS.registered_names()
    ['MyTrainer']
    """

    def __init__(self, name):
        self._name = name
        self._objects = {}
        self._defaults = set()

    def register(self, obj=None, force=False):
        """Register `obj` under its `__name__` and return it; without `obj`, return a decorator.

        Raises KeyError for a name that is taken, unless `force` (which replaces).
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        name = obj.__name__
        if name in self._objects and name not in self._defaults and not force:
            raise KeyError(f'An object named "{name}" was already registered in "{self._name}" registry')
        self._objects[name] = obj
        self._defaults.discard(name)
        return obj

    def register_default(self, obj):
        """Register `obj` unless its name is taken; somebody else may register the name later; return `obj`."""
        if obj.__name__ not in self._objects:
            self.register(obj)
            self._defaults.add(obj.__name__)
        return obj

    def get(self, name):
        """Return the object registered under `name`; raises KeyError."""
        if name not in self._objects:
            raise KeyError(f'Object name "{name}" does not exist in "{self._name}" registry')
        return self._objects[name]

    def registered_names(self):
        """Return the names in registration order."""
        return list(self._objects)

    def build(self, name, announcement, /, *args, **kwargs):
        """Check `name`, print `<announcement>: <name>` unless the announcement is None, and call the object."""
        check_availability(name, self.registered_names())
        if announcement:
            print(f"{announcement}: {name}")
        return self.get(name)(*args, **kwargs)
