"""The site: scores and pictures as static pages, and the report of one run. No torch."""

from conservbench.site.report import write_report
from conservbench.site.site import SiteError, write_site

__all__ = ["SiteError", "write_report", "write_site"]
