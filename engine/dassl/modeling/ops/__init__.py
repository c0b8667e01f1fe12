"""Operations on labels, schedules and weights."""

from .utils import *
