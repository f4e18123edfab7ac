# As retinanet_r50_512, for aLRP (Oksuz et al., 2020) and RankSort: its box coder, its learning rate of 0.008.
_base_ = ["./retinanet_r50_512.py"]

model = dict(bbox_head=dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2])))
optim_wrapper = dict(optimizer=dict(lr=0.008))
