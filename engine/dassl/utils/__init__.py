"""Small tools that trainers, data sets and scripts share."""

from .checkpoint_fields import *
from .errors import *
from .logger import *
from .meters import *
from .random_state import *
from .registry import *
from .tools import *
from .torchtools import *
