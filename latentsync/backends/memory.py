"""How much device memory inference may take."""

from typing import Literal

Memory = Literal["usual", "low"]
