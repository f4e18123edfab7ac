# As retinanet_r50_512_ranking, for AP loss: the learning rate of 0.002 of aLRP's release.
_base_ = ["./retinanet_r50_512_ranking.py"]

optim_wrapper = dict(optimizer=dict(lr=0.002))
