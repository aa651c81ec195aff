"""Is an explanation any good? Metrics of heatmaps against annotations and against the classifier."""

from jaxsal.evaluation.faithfulness import Curve as Curve
from jaxsal.evaluation.faithfulness import deletion as deletion
from jaxsal.evaluation.faithfulness import insertion as insertion
from jaxsal.evaluation.hallucination import edges as edges
from jaxsal.evaluation.hallucination import hallucination_score as hallucination_score
from jaxsal.evaluation.localisation import ClassMeans as ClassMeans
from jaxsal.evaluation.localisation import class_means as class_means
from jaxsal.evaluation.localisation import difficult as difficult
from jaxsal.evaluation.localisation import energy_pointing_game as energy_pointing_game
from jaxsal.evaluation.localisation import pointing_game as pointing_game
from jaxsal.evaluation.localisation import regions as regions
