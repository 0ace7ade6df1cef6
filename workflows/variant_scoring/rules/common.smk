# The configuration, checked, and what the rules read from it.
import re
import shlex
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def refuse(message):
    raise WorkflowError(f"Configuration: {message}")


def explain(problem):
    """One line for what jsonschema found: where, what, and what is possible there."""
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in problem.absolute_path).lstrip(".")
    text = f"{where or 'top level'}: {problem.message}."
    if problem.validator == "additionalProperties":
        return f"{text} Known keys: {', '.join(problem.schema['properties'])}."
    description = problem.schema.get("description")
    return f"{text} Wanted: {description}" if description else text


def vcf_by_name(entries):
    """Input files by their names, in the order of the configuration."""
    names = [entry["name"] for entry in entries]
    for name in names:
        if names.count(name) > 1:
            refuse(f"two inputs have the name {name!r}. Results are stored by name: give each its own.")
    if "all" in names:
        refuse("an input has the name 'all', which is that of the summary's last row. Choose another.")
    return {entry["name"]: entry["vcf"] for entry in entries}


def shipped_hint(model):
    """None if genossm has a model of this name, else a sentence, maybe empty, that names a near one."""
    try:
        from genossm.models import shipped
    except ModuleNotFoundError:
        # Snakemake may run in an environment of its own; `genossm score` of the rules' says whether there is one.
        return "" if "/" in model else None
    return None if model in shipped.shipped_names() else shipped.shipped_hint(model)


def model_files(model):
    """The files whose change calls for new scores; none for a shipped model or one of the Hugging Face Hub."""
    directory = Path(model)
    if directory.is_dir():
        return sorted(map(str, (*directory.glob("*.json"), *directory.glob("*.safetensors"))))
    if not HUB_ID.fullmatch(model) and (hint := shipped_hint(model)) is not None:
        refuse(
            f"there is no model directory at {model}, and it is no shipped model's name and no Hub id such as "
            f"owner/name. Check the path.{hint}"
        )
    return []


def model_of(wildcards, input):
    """The model as `genossm score` takes it: where its files are, so that a job may run on a copy of them."""
    named = config["model"]
    directory = Path(input.model[0]).parent if input.model else None
    # As it was written, where that is the same: ./NAME is a directory even if a shipped model is called NAME.
    return named if directory in (None, Path(named)) else directory


def store_path(reference):
    """A genome store as it is; any other reference becomes one."""
    path = reference["path"]
    return path if Path(path).suffix == ".zarr" else f"{RESULTS}/genome/reference.zarr"


def store_options(reference):
    words = ["--alias-file", reference["aliases"]] if reference["aliases"] else []
    return shlex.join([*words, *(word for contig in reference["circular"] for word in ("--circular", contig))])


def score_options(score):
    """The configuration's section `score` as options of `genossm score`."""
    words = [word for method in score["methods"] for word in ("--method", method)]
    words += ["--both-strands"] if score["both_strands"] else []
    for key in ("context", "horizon", "check_ref", "max_skip_frac", "batch_size", "device"):
        if score[key] is not None:
            words += [f"--{key.replace('_', '-')}", str(score[key])]
    return shlex.join(words)


try:
    validate(config, "../schemas/config.schema.yaml")
except WorkflowError as error:
    # Snakemake's own text ends with the whole schema.
    refuse(explain(error.__context__))

RESULTS = Path(config["output"])
VCFS = vcf_by_name(config["inputs"])
MODEL_FILES = model_files(config["model"])
STORE = store_path(config["reference"])


wildcard_constraints:
    name="|".join(map(re.escape, VCFS)),
