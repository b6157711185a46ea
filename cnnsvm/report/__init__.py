"""Reports of an evaluation: plain text, JSON, CSV and one self-contained HTML page."""

from cnnsvm.report.files import write_report
from cnnsvm.report.text import format_report

__all__ = ["format_report", "write_report"]
