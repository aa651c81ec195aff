"""Ablation paths: from an image to its baseline, so that the class stays as long, or goes as soon, as it can.

An ``AblationPath`` is the path with all that was measured along it; ``ablation_path`` optimises one; ``project`` makes
one of any masks; the reductions make heatmaps of it.
"""

from jaxsal.paths._monotone import monotonize as monotonize
from jaxsal.paths._optimise import ablation_path as ablation_path
from jaxsal.paths._optimise import ablation_path_heatmap as ablation_path_heatmap
from jaxsal.paths._path import AblationPath as AblationPath
from jaxsal.paths._path import AxiomViolation as AxiomViolation
from jaxsal.paths._path import Status as Status
from jaxsal.paths._path import affine as affine
from jaxsal.paths._path import axiom_violation as axiom_violation
from jaxsal.paths._path import from_updates as from_updates
from jaxsal.paths._path import pixel_ablation_path as pixel_ablation_path
from jaxsal.paths._path import updates as updates
from jaxsal.paths._projection import constant_speed as constant_speed
from jaxsal.paths._projection import pinch as pinch
from jaxsal.paths._projection import project as project
from jaxsal.paths._projection import saturate as saturate
from jaxsal.paths._reductions import average as average
from jaxsal.paths._reductions import class_transition as class_transition
from jaxsal.paths._reductions import contrastive_average as contrastive_average
from jaxsal.paths._reductions import influence_weighted as influence_weighted
from jaxsal.paths._reductions import window as window
from jaxsal.paths._scores import KINDS as KINDS
from jaxsal.paths._scores import OBJECTIVES as OBJECTIVES
from jaxsal.paths._scores import evaluate as evaluate
from jaxsal.paths._scores import score_gradient as score_gradient
from jaxsal.paths.settings import PRESETS as PRESETS
from jaxsal.paths.settings import Settings as Settings
