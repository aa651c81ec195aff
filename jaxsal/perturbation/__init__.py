"""Attribution by intervention: ablate features of the image and look at the score."""

from jaxsal.perturbation._extremal import extremal_masks as extremal_masks
from jaxsal.perturbation._extremal import extremal_perturbation as extremal_perturbation
from jaxsal.perturbation._kernel_shap import kernel_shap as kernel_shap
from jaxsal.perturbation._lime import lime as lime
from jaxsal.perturbation._meaningful import meaningful_perturbation as meaningful_perturbation
from jaxsal.perturbation._occlusion import occlusion as occlusion
from jaxsal.perturbation._rise import rise as rise
from jaxsal.perturbation._sampling import Estimate as Estimate
from jaxsal.perturbation._shapley import shapley as shapley
