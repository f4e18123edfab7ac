# ATSS with ResNet-50 as RankSort (Oksuz et al., 2021) trains it: 12 epochs on COCO 2017, 8 x 4 images,
# three anchor scales, its learning rate of 0.008.
_base_ = ["./atss_r50.py"]

model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=4, scales_per_octave=3)))
train_dataloader = dict(batch_size=4, num_workers=4)
optim_wrapper = dict(optimizer=dict(lr=0.008))
auto_scale_lr = dict(base_batch_size=32)
