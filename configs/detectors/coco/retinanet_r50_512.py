# RetinaNet (Lin et al., 2017) with ResNet-50 in the 100 epochs of Parameterized AP Loss (Tao et al., 2021), as its
# focal-loss baselines are trained: two anchor scales, learning rate 0.016 for 64 images.
_base_ = ["./_recipe_512.py", "mmdet::_base_/models/retinanet_r50_fpn.py"]

model = dict(bbox_head=dict(anchor_generator=dict(scales_per_octave=2)))
optim_wrapper = dict(optimizer=dict(lr=0.016))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=100, by_epoch=True, milestones=[60, 80], gamma=0.1),
]
