"""Class activation maps: heatmaps made of the activations at a layer."""

from jaxsal.cam.ablation_cam import ablation_cam as ablation_cam
from jaxsal.cam.bilateral import bilateral_filter as bilateral_filter
from jaxsal.cam.class_activation import cam as cam
from jaxsal.cam.eigen import eigen_cam as eigen_cam
from jaxsal.cam.eigen import eigen_fused as eigen_fused
from jaxsal.cam.eigen import eigen_grad_cam as eigen_grad_cam
from jaxsal.cam.eigen import eigen_salience as eigen_salience
from jaxsal.cam.element_wise import hires_cam as hires_cam
from jaxsal.cam.element_wise import layer_cam as layer_cam
from jaxsal.cam.fem import fem as fem
from jaxsal.cam.grad_cam import grad_cam as grad_cam
from jaxsal.cam.grad_cam import guided_grad_cam as guided_grad_cam
from jaxsal.cam.grad_cam_pp import grad_cam_pp as grad_cam_pp
from jaxsal.cam.kpca import kpca_cam as kpca_cam
from jaxsal.cam.score_cam import score_cam as score_cam
from jaxsal.cam.signature import image_signature as image_signature
from jaxsal.cam.signature import signature as signature
from jaxsal.cam.xgrad_cam import xgrad_cam as xgrad_cam
