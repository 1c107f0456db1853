"""What a sheet of pictures carries."""

import numpy as np

from liveframe.frame import Image
from understudy.draw.contact_sheet import labelled


def bears_label(sheet: Image) -> bool:
    """Whether "AI MODIFIED" stands above a sheet, as it is or after JPEG."""
    wanted = labelled(np.zeros((1, *sheet.shape[1:]), np.uint8))[:-1]
    return float(np.abs(sheet[: len(wanted)].astype(np.int16) - wanted).mean()) < 6
