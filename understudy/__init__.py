"""The face domain: from a clip's faces to a face swapped in a live frame."""

import os

from understudy.jobs.quiet_logs import keep_quiet

keep_quiet(os.environ)  # before any module here loads a library that would report
