"""Is an explanation any good? Metrics of heatmaps against annotations and against the classifier."""

from jaxsal.evaluation._faithfulness import Curve as Curve
from jaxsal.evaluation._faithfulness import deletion as deletion
from jaxsal.evaluation._faithfulness import insertion as insertion
from jaxsal.evaluation._hallucination import edges as edges
from jaxsal.evaluation._hallucination import hallucination_score as hallucination_score
from jaxsal.evaluation._localisation import ClassMeans as ClassMeans
from jaxsal.evaluation._localisation import class_means as class_means
from jaxsal.evaluation._localisation import difficult as difficult
from jaxsal.evaluation._localisation import energy_pointing_game as energy_pointing_game
from jaxsal.evaluation._localisation import pointing_game as pointing_game
from jaxsal.evaluation._localisation import regions as regions
