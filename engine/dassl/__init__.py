"""An import-compatible `dassl`: the generic engine that repositories of the CoOp family use."""

__version__ = "0.6.3+atlas.1"
__author__ = "the dspt-atlas contributors"
__homepage__ = "engine/README.md in the dspt-atlas repository"
