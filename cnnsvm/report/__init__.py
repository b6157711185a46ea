"""Reports as data: builders make a `Report`, templates render it as a page and as text."""

from cnnsvm.report.model import Report
from cnnsvm.report.render import render_html, render_text, write_report

__all__ = ["Report", "render_html", "render_text", "write_report"]
