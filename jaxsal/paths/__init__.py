"""Ablation paths: from an image to its baseline, so that the class stays as long, or goes as soon, as it can.

An ``AblationPath`` is the path with all that was measured along it; ``ablation_path`` optimises one; ``project`` makes
one of any masks; the reductions make heatmaps of it.
"""

from jaxsal.paths.monotone import monotonize as monotonize
from jaxsal.paths.optimise import ablation_path as ablation_path
from jaxsal.paths.optimise import ablation_path_heatmap as ablation_path_heatmap
from jaxsal.paths.path import AblationPath as AblationPath
from jaxsal.paths.path import AxiomViolation as AxiomViolation
from jaxsal.paths.path import Status as Status
from jaxsal.paths.path import affine as affine
from jaxsal.paths.path import axiom_violation as axiom_violation
from jaxsal.paths.path import from_updates as from_updates
from jaxsal.paths.path import pixel_ablation_path as pixel_ablation_path
from jaxsal.paths.path import updates as updates
from jaxsal.paths.projection import constant_speed as constant_speed
from jaxsal.paths.projection import pinch as pinch
from jaxsal.paths.projection import project as project
from jaxsal.paths.projection import saturate as saturate
from jaxsal.paths.reductions import average as average
from jaxsal.paths.reductions import class_transition as class_transition
from jaxsal.paths.reductions import contrastive_average as contrastive_average
from jaxsal.paths.reductions import influence_weighted as influence_weighted
from jaxsal.paths.reductions import window as window
from jaxsal.paths.scores import evaluate as evaluate
from jaxsal.paths.scores import score_gradient as score_gradient
