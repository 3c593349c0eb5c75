import numpy as numpy  # before torch does it, which would swallow a signal that comes meanwhile
