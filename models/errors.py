"""What can go wrong while models are made; each text names the thing and the next step."""


class ModelError(Exception):
    """Base of all of them: what a command prints before it exits with 1."""


class CatalogError(ModelError):
    """A setting, or what it leads to, is wrong; the text names it and says what to write."""


class FetchError(ModelError):
    """A package could not be had, or is not what the catalogue says; nothing of it was kept."""


class GraphError(ModelError):
    """A graph that must not be published; the text names tensor or node and what is wrong."""


class PublishError(ModelError):
    """The store can't be written, or holds something that must not be overwritten."""
